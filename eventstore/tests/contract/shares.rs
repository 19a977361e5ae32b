//! Sharing the work on a log: each process its part, whoever comes, leaves or dies.

use std::time::Duration;

use convergio_eventstore::jetstream::SlotLease;
use convergio_eventstore::{ComponentHealth, HealthRegistry, SLOT_COUNT, SlotSet};
use convergio_test_support::nats::{Cluster, SyncMode, eventually, open_log};

use crate::jetstream::beside;

const SIGN: &str = "h.derived.share.member.00000000-0000-4000-8000-000000000001";

/// Waits until the slots are shared out, to each one no more than its part.
async fn shared_out(shares: &[SlotLease]) {
    let part = SLOT_COUNT.div_ceil(u32::try_from(shares.len()).expect("few"));
    eventually("every slot is held by one", async || {
        let held: Vec<SlotSet> = shares.iter().map(|share| *share.watch_slots().borrow()).collect();
        let holders = |slot| held.iter().filter(|share| share.contains_slot(slot)).count();
        let once = (0..SLOT_COUNT).all(|slot| holders(slot) == 1);
        (once && held.iter().all(|share| share.slot_count() <= part)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_shared_out_anew_after_a_dead_member_was_forgotten_by_all() {
    let cluster = Cluster::start(1, SyncMode::Always);
    let log = cluster.log("H").await;
    let context = beside(&cluster).await;
    // It gave a sign of life, and never another one.
    context.publish(SIGN, ".".into()).await.expect("sent").await.expect("stored");
    let mut shares: Vec<SlotLease> =
        (0..4).map(|_| log.lease_slots(ComponentHealth::default())).collect();
    shared_out(&shares).await;
    let derived = context.get_stream("H_DERIVED").await.expect("there");
    eventually("the dead member is forgotten", async || {
        derived.get_last_raw_message_by_subject(SIGN).await.is_err().then_some(())
    })
    .await;
    // All of them have tried to forget it by now, or do so a moment later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let other = open_log(&cluster.config("H")).await;
    shares.push(other.lease_slots(ComponentHealth::default()));
    shared_out(&shares).await;
    for share in shares.drain(..4) {
        share.release_slots().await;
    }
    shared_out(&shares).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_reach_the_servers_holds_nothing_and_reports_it() {
    let mut cluster = Cluster::start(1, SyncMode::Always);
    let log = cluster.log("H").await;
    let registry = HealthRegistry::default();
    let shares = [log.lease_slots(registry.component_health("slots"))];
    shared_out(&shares).await;
    assert_eq!(registry.current_failures(), []);
    cluster.servers[0].kill();
    eventually("it holds nothing", async || {
        (*shares[0].watch_slots().borrow() == SlotSet::NONE).then_some(())
    })
    .await;
    assert_eq!(registry.current_failures()[0].component, "slots");
    cluster.servers[0].start();
    shared_out(&shares).await;
    eventually("it reports nothing any more", async || {
        registry.current_failures().is_empty().then_some(())
    })
    .await;
}
