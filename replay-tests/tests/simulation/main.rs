//! Thousands of lives of executors under a clock that is not real, on a log that fails: whatever
//! dies wherever, whoever believes that a run is his, and whoever writes to it meanwhile, every run
//! completes, every step is recorded once. Runs are wide, deep, families, and wait; places are few,
//! and commits small.
//!
//! `CONVERGIO_SIM_SEEDS` sets how many seeds are tried, `CONVERGIO_SIM_SEED` tries one again. A
//! seed fixes the faults, the deaths, the shares and the times; the order in which tools end is
//! free.

mod faults;
mod shapes;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use world::World;

const SEEDS: u64 = 500;
/// Lives that end by death; fewer than the tries of a step whose executor died.
const DEATHS: u64 = 5;
/// Virtual time in which all must be done once nothing fails any more.
const LAST_LIFE: Duration = Duration::from_secs(3600);

/// Simulates one seed; gives the number of deaths.
fn simulate(seed: u64) -> Result<u64, String> {
    let world = World::new(seed);
    world.life(LAST_LIFE, world.create()).ok_or("the runs cannot be created")?;
    let mut deaths = 0;
    world.log.one_in.store(4 + world.random.below(30), Ordering::Relaxed);
    for _ in 0..world.random.below(DEATHS + 1) {
        // Most lives are short, some see the sleeps end.
        let span = match world.random.below(4) {
            0 => world.random.below(200_000),
            _ => world.random.below(400),
        };
        if world.life(Duration::from_millis(1 + span), world.work()).is_none() {
            deaths += 1;
        }
    }
    world.log.one_in.store(0, Ordering::Relaxed);
    world.life(LAST_LIFE, world.finish()).ok_or("the runs do not end")?;
    let checked = world.life(LAST_LIFE, world.check());
    checked.ok_or("the check does not end")?.map(|()| deaths)
}

/// Counts panics from now on: one in an executor's task is caught by its runtime, and its run goes
/// on later, so that nothing else would tell of it.
fn count_panics() -> Arc<AtomicU64> {
    let (panics, told) = (Arc::new(AtomicU64::new(0)), std::panic::take_hook());
    let counted = Arc::clone(&panics);
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::Relaxed);
        told(panic);
    }));
    panics
}

#[test]
fn every_run_completes_once_whatever_dies() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let one = number("CONVERGIO_SIM_SEED").map(|seed| seed..seed + 1);
    let seeds = one.unwrap_or(0..number("CONVERGIO_SIM_SEEDS").unwrap_or(SEEDS));
    let (next, deaths) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let panics = count_panics();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match simulate(seed) {
                        Ok(died) => deaths.fetch_add(died, Ordering::Relaxed),
                        Err(error) => panic!("CONVERGIO_SIM_SEED={seed}: {error}"),
                    };
                }
            });
        }
    });
    let panics = panics.load(Ordering::Relaxed);
    assert_eq!(panics, 0, "executors that panicked");
    let deaths = deaths.into_inner();
    println!("{} seeds, {deaths} deaths", seeds.end - seeds.start);
}
