//! Vectors as arrays and as base64: the same values, or the fault that is told first.

use super::*;

#[track_caller]
fn read(json: &str) -> Embeddings {
    serde_json::from_str(json).expect("a sequence of vectors")
}

fn base64(vector: &[f32]) -> String {
    STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

#[track_caller]
fn check_fault(json: &str, expect: Fault) {
    assert_eq!(read(json).fault, Some(expect), "{json}");
}

#[test]
fn arrays_and_base64_give_the_same_vectors() {
    let arrays = read("[[1, 2.5], [-0.1, 3.4028235e38]]");
    let strings = read(&format!("[\"{}\",\"{}\"]", base64(&[1.0, 2.5]), base64(&[-0.1, f32::MAX])));
    assert_eq!(arrays.vectors, vec![Some(vec![1.0, 2.5]), Some(vec![-0.1, f32::MAX])]);
    assert_eq!((&strings.vectors, strings.dimension, &strings.fault), (&arrays.vectors, Some(2), &None));
}

#[test]
fn base64_of_any_length_decodes_across_chunks() {
    for dimension in [1, 2, 3, 191, 192, 193, 383, 384, 385, 1536] {
        let vector: Vec<f32> = (0_u16..dimension).map(|i| f32::from(i) * 0.37 - 5.0).collect();
        assert_eq!(decode(&base64(&vector)), Ok(vector), "{dimension}");
    }
}

#[test]
fn nulls_are_vectors_that_stay_as_they_are() {
    let embeddings = read("[null, [1, 2], null]");
    assert_eq!(embeddings.vectors, vec![None, Some(vec![1.0, 2.0]), None]);
    assert_eq!(read("[null]").dimension, None);
    let mut reader = serde_json::Deserializer::from_str("[null]");
    assert!(required(&mut reader).is_err());
}

#[test]
fn other_shapes_are_refused() {
    for json in ["null", "3", "\"x\"", "{}", "[3]", "[[\"x\"]]", "[[true]]", "[[null]]", "[[[1]]]", "[{}]"] {
        assert!(serde_json::from_str::<Embeddings>(json).is_err(), "{json}");
    }
    for json in ["[[1,2],\"AACAPw==\"]", "[\"AACAPw==\",[1]]", "[null,[1],\"AACAPw==\"]"] {
        let error = serde_json::from_str::<Embeddings>(json).expect_err("both kinds").to_string();
        assert!(error.contains("not both"), "{error}");
    }
}

#[test]
fn encoding_faults_name_the_place() {
    let encoding = |message: &str| Fault::Encoding(message.into());
    check_fault(r#"["x"]"#, encoding("Invalid base64 string: Invalid input length: 1"));
    check_fault(r#"["AACAPwAAAEA"]"#, encoding("Invalid base64 string: Invalid padding"));
    check_fault(r#"["AACAPwAAAEA=\n"]"#, encoding("Invalid base64 string: Invalid symbol 10, offset 12."));
    let far = format!("[\"{}!AAA\"]", "A".repeat(2048));
    check_fault(&far, encoding("Invalid base64 string: Invalid symbol 33, offset 2048."));
    let padded_within = format!("[\"{}AA==AAAA\"]", "A".repeat(1020));
    check_fault(&padded_within, encoding("Invalid base64 string: Invalid symbol 61, offset 1022."));
    let odd = "Invalid byte length: 3 bytes cannot be converted to f32 values (must be divisible by 4)";
    check_fault(r#"["AAAA"]"#, encoding(odd));
    let far_odd = "Invalid byte length: 771 bytes cannot be converted to f32 values (must be divisible by 4)";
    check_fault(&format!("[\"{}\"]", "A".repeat(1028)), encoding(far_odd));
    let nan = format!("[\"{}\"]", base64(&[1.0, f32::NAN]));
    check_fault(&nan, encoding("Non-finite float value at embedding index 1: NaN"));
    let infinite = format!("[\"{}\"]", base64(&[f32::NEG_INFINITY]));
    check_fault(&infinite, encoding("Non-finite float value at embedding index 0: -inf"));
}

#[test]
fn vectors_that_no_collection_holds_are_faults() {
    let vector = |message: &str| Fault::Vector(message.into());
    check_fault("[[]]", vector("Each embedding must have at least 1 dimension"));
    check_fault(r#"[""]"#, vector("Each embedding must have at least 1 dimension"));
    check_fault("[[1e39,1]]", vector("Embeddings must not contain NaN or Infinity values"));
    let long = format!("[[{}1]]", "1,".repeat(limits::DIMENSION_MAX));
    check_fault(&long, vector("Each embedding must have at most 65536 dimensions"));
    check_fault("[[1],[1,2]]", Fault::Dimensions);
}

#[test]
fn the_earliest_check_is_told_first_whatever_the_order_of_vectors() {
    check_fault("[[1],[1,2],[]]", Fault::Vector("Each embedding must have at least 1 dimension".into()));
    check_fault("[[],[1],[1,2]]", Fault::Vector("Each embedding must have at least 1 dimension".into()));
    check_fault(
        r#"["AACAPw==","AACAPwAAAEA=","!"]"#,
        Fault::Encoding("Invalid base64 string: Invalid symbol 33, offset 0.".into()),
    );
}
