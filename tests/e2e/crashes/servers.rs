//! workerd, devstore, sqld and the compactor, if there is one, are killed.

use stack::{Part, Stack};
use std::thread;
use std::time::Duration;

use super::{Random, clients, collections, history, kills, trouble};
use crate::harness::{Api, Bucket, own_stack};

#[test]
fn kills_and_lost_replies_lose_nothing_halve_nothing_and_double_nothing() {
    let (kills, mut random) = (kills(4), Random::from_env());
    println!("{kills} kills, seed {}", random.0);
    let mut stack = own_stack("restart");
    let collections = collections(&Api::new(stack.gateway_url()));

    let (url, seed) = (stack.gateway_url(), Random(random.0));
    let histories = clients::run(&url, &collections, &seed, |acknowledged| {
        for _ in 0..kills {
            trouble(&stack, &mut random);
            clients::wait_for(acknowledged, clients::WRITERS);
            thread::sleep(Duration::from_millis(random.below(1000)));
            kill_something(&mut stack, &mut random);
        }
    });

    // New isolates, which believe nothing.
    stack.store_admin().clear_faults().unwrap();
    stack.parts().into_iter().for_each(|part| stack.restart(part).unwrap());
    let (api, bucket) = (Api::new(stack.gateway_url()), Bucket::of(&stack));
    for (number, collection) in collections.iter().enumerate() {
        let of_collection = histories.iter().skip(number).step_by(collections.len());
        history::check(&api, collection, of_collection, || bucket.operations(&collection.id));
    }
}

/// One process, or all of them in some order; a restart follows at once.
fn kill_something(stack: &mut Stack, random: &mut Random) {
    let all = stack.parts();
    let first = usize::try_from(random.below(all.len() as u64)).unwrap();
    let count = if random.below(4) == 0 { all.len() } else { 1 };
    let parts = (0..count).map(|i| all[(first + i) % all.len()]);
    parts.clone().for_each(|part| stack.kill(part).unwrap());
    let killed: Vec<&str> = parts.clone().map(Part::name).collect();
    println!("killed {}", killed.join(", "));
    // In the order in which a stack starts: workerd is healthy without the others, but not useful.
    all.iter().copied().filter(|part| parts.clone().any(|killed| killed == *part)).for_each(|part| {
        stack.restart(part).unwrap();
    });
}
