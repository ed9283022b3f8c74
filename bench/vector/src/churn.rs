//! An index that rows were added to and taken from: what it finds, and what it cost, beside one that was built anew.

use crate::data::Data;
use crate::{cpu_seconds, now, seconds};
use std::ops::Range;
use vector::codes::LeafWriter;
use vector::{Index, Options, Rows, update};

/// Part of the rows that come later.
const LATER: f64 = 0.3 / 1.3;
/// Parts of the others that are replaced by them, and deleted.
const REPLACED: f64 = 0.3;
const DELETED: f64 = 0.2;

/// What lives after the churn, as data of its own, and its index by update; prints what both ways cost.
pub(crate) fn churned(data: &Data, options: &Options, later: Option<usize>) -> (Data, Index, Index) {
    let count = data.count();
    let later = later.unwrap_or((count as f64 * LATER) as usize);
    let first = count - later;
    let gone = if later * 5 < first { 0 } else { (first as f64 * (REPLACED + DELETED)) as usize };
    let (start, clustering) = (now(), options.clustering);
    let base = vector::build(Rows::new(&data.rows[..first * data.dimension], data.dimension), options);
    println!("\nchurn: {first} rows at first in {:.1} s, {gone} of them go, {later} come", seconds(start));
    // Rows are in no order, so that those at the start are as good as any.
    let start = now();
    let (index, rearranged) = merged(&base, data, gone, first..count, options);
    let took = seconds(start);
    let live = data.rows[gone * data.dimension..].to_vec();
    let start = now();
    let anew = vector::build(Rows::new(&live, data.dimension), options);
    println!(
        "by update in {took:.2} s with {} threads, {rearranged} of {} leaves rearranged, now {}; anew in {:.1} s: {} leaves",
        clustering.threads,
        base.table.leaves(),
        index.table.leaves(),
        seconds(start),
        anew.table.leaves(),
    );
    let data = Data { name: data.name.clone(), dimension: data.dimension, rows: live, queries: data.queries.clone() };
    let order = index.order.iter().map(|row| row - gone as u32).collect();
    (data, Index { order, ..index }, anew)
}

/// The index of all rows, of which `first` were indexed anew and the others added in `rounds` steps of equal ratio, beside one
/// that was built anew; prints what each step cost.
pub(crate) fn grown(data: &Data, options: &Options, first: usize, rounds: usize) -> (Index, Index) {
    let (count, cpu) = (data.count(), cpu_seconds());
    let mut index = vector::build(Rows::new(&data.rows[..first * data.dimension], data.dimension), options);
    println!("\ngrowth: {first} rows anew: {:.2} s CPU, {} leaves", cpu_seconds() - cpu, index.table.leaves());
    let ratio = (count as f64 / first as f64).powf(1.0 / rounds as f64);
    let (start, mut rows) = (cpu_seconds(), first);
    for round in 1..=rounds {
        let cpu = cpu_seconds();
        let until = if round == rounds { count } else { (first as f64 * ratio.powi(round as i32)) as usize };
        let (next, rearranged) = merged(&index, data, 0, rows..until, options);
        println!(
            "{rows} to {until} rows: {:.2} s CPU, {rearranged} leaves rearranged, now {}",
            cpu_seconds() - cpu,
            next.table.leaves()
        );
        (index, rows) = (next, until);
    }
    let (all, cpu) = (cpu_seconds() - start, cpu_seconds());
    let anew = vector::build(Rows::new(&data.rows, data.dimension), options);
    println!("all steps: {all:.2} s CPU; anew: {:.2} s CPU, {} leaves", cpu_seconds() - cpu, anew.table.leaves());
    (index, anew)
}

/// The index of `base`'s rows from `gone` on and of those `added`, and how many leaves were rearranged.
fn merged(base: &Index, data: &Data, gone: usize, added: Range<usize>, options: &Options) -> (Index, usize) {
    let (table, dimension, clustering) = (&base.table, data.dimension, &options.clustering);
    let frame = table.frame();
    let row = |row: u32| &data.rows[row as usize * dimension..(row as usize + 1) * dimension];
    let centroids = update::centroids(table);
    let centroids = Rows::new(&centroids, dimension);
    let placed: Vec<f32> = added.clone().flat_map(|at| frame.place(row(at as u32))).collect();
    let labels = update::file(centroids, Rows::new(&placed, dimension), clustering.threads);
    let mut members: Vec<Vec<(u32, Option<usize>)>> = (0..table.leaves())
        .map(|leaf| {
            let rows = table.rows(leaf..leaf + 1);
            let old = base.order[rows.start as usize..rows.end as usize].iter().enumerate();
            old.filter(|(_, row)| **row as usize >= gone).map(|(at, row)| (*row, Some(at))).collect()
        })
        .collect();
    for (at, leaf) in added.zip(labels) {
        members[leaf as usize].push((at as u32, None));
    }
    let counts: Vec<u32> = members.iter().map(|members| members.len() as u32).collect();
    let affected = update::affected(centroids, &counts, clustering);
    let of_affected = || affected.iter().flat_map(|leaf| members[*leaf as usize].iter().map(|member| (*leaf, *member)));
    let values: Vec<f32> = of_affected().flat_map(|(_, (at, _))| frame.place(row(at))).collect();
    let moving: Vec<(u32, (u32, Option<usize>))> = of_affected().collect();
    let labels: Vec<u32> = moving.iter().map(|(leaf, _)| *leaf).collect();
    let rearranged = update::rearrange(centroids, &affected, Rows::new(&values, dimension), &labels, clustering);

    let mut result = Index { table: table.emptied(), codes: Vec::new(), order: Vec::new() };
    let mut push = |place: usize, new: Option<(&[f32], f32)>, members: &[(u32, Option<usize>)]| {
        let count = members.len() as u32;
        match new {
            Some((centroid, radius)) => result.table.push(centroid, radius, count),
            None => result.table.push_from(table, place, count),
        }
        let bytes = table.bytes(place..place + 1);
        let old = &base.codes[bytes.start as usize..bytes.end as usize];
        let centroid_now = result.table.centroid(result.table.leaves() - 1);
        let mut writer = LeafWriter::new(table.codec());
        for (at, was) in members {
            match was.filter(|_| new.is_none()) {
                Some(was) => writer.copy(old, was).expect("own codes"),
                None => writer.push(frame, &centroid_now, row(*at)),
            }
            result.order.push(*at);
        }
        result.codes.extend(writer.finish());
    };
    let mut pending = rearranged.iter().peekable();
    for (place, members) in members.iter().enumerate() {
        if affected.binary_search(&(place as u32)).is_err() {
            push(place, None, members);
        }
        while let Some(leaf) = pending.next_if(|leaf| leaf.place as usize == place) {
            let of = |member: &u32| {
                let (label, (at, was)) = moving[*member as usize];
                (at, was.filter(|_| label == leaf.place))
            };
            let members: Vec<_> = leaf.members.iter().map(of).collect();
            push(place, leaf.centroid.as_deref().map(|centroid| (centroid, leaf.radius)), &members);
        }
    }
    (result, affected.len())
}
