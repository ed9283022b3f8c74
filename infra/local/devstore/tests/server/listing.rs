//! Listings over HTTP. That a walk meets keys in the right order is tested beside it; here are the words of the API.

use http::StatusCode;

use crate::client::Fixture;

async fn filled(keys: &[&str]) -> Fixture {
    let fixture = Fixture::start().await;
    for key in keys {
        fixture.s3.put(key, &[], (*key).to_owned()).await;
    }
    fixture
}

#[tokio::test]
async fn pages_continue_where_the_last_one_ended() {
    let mut keys = ["b", "a/", "a", "a-", "a/b", "a0", "B", "a b+%é", "c/1", "c/2"];
    let fixture = filled(&keys).await;
    keys.sort_unstable();
    for size in 1..=keys.len() {
        let mut listed = Vec::new();
        let mut token = None;
        loop {
            let page = fixture
                .s3
                .list(|list| {
                    list.with_max_keys(size);
                    if let Some(token) = token.take() {
                        list.with_continuation_token(token);
                    }
                })
                .await;
            assert!(page.contents.len() <= size);
            listed.extend(page.contents.into_iter().map(|object| object.key));
            token = page.next_continuation_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(listed, keys, "{size} a page");
    }
}

#[tokio::test]
async fn a_listing_shows_what_lies_beyond_start_after() {
    let fixture = filled(&["log/0", "log/1", "log/2", "log/20", "other"]).await;
    let page = fixture
        .s3
        .list(|list| {
            list.with_prefix("log/");
            list.with_start_after("log/1");
        })
        .await;
    let keys: Vec<&str> = page.contents.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["log/2", "log/20"]);
    assert_eq!(page.contents[1].size, Some(6));
    let etag = fixture.s3.head("log/20", &[]).await.header("etag").to_owned();
    assert_eq!(page.contents[1].etag.as_deref(), Some(etag.as_str()));
}

#[tokio::test]
async fn keys_beyond_the_delimiter_are_shown_as_one() {
    let fixture = filled(&["a/1", "a/2", "b", "c/d/1", "c/e"]).await;
    let page = fixture.s3.list(|list| list.with_delimiter("/")).await;
    let keys: Vec<&str> = page.contents.iter().map(|object| object.key.as_str()).collect();
    let prefixes: Vec<&str> = page.common_prefixes.iter().map(|prefix| prefix.prefix.as_str()).collect();
    assert_eq!((keys, prefixes), (vec!["b"], vec!["a/", "c/"]));
}

#[tokio::test]
async fn many_objects_are_deleted_at_once() {
    let fixture = filled(&["a", "a/b", "a&b", "kept"]).await;
    let xml = "<Delete><Object><Key>a</Key></Object><Object><Key>a/b</Key></Object><Object><Key>a&amp;b</Key></Object>\
               <Object><Key>absent</Key></Object></Delete>";
    let reply = fixture.s3.delete_many(xml).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    assert_eq!(reply.text().matches("<Deleted>").count(), 4, "{}", reply.text());
    let keys: Vec<String> = fixture.s3.list(|_| ()).await.contents.into_iter().map(|object| object.key).collect();
    assert_eq!(keys, ["kept"]);
}
