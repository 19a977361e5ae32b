//! Lease of slots: the processes of a log divide its slots, without synchronised clocks.
//!
//! Each process publishes a heartbeat every second. A process whose heartbeat has not changed for
//! [`DEAD_AFTER`], by the observer's clock, is dead, and its slots are free. A process that could
//! not publish its own for the shorter [`LEASE_DURATION`] holds nothing. Slots change hands by
//! compare-and-set on one message each; each process takes no more than its part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::api::{NoAnswerError, PublishOutcome};
use super::log_core::LogCore;
use crate::health::ComponentHealth;
use crate::slot_set::{SLOT_COUNT, SlotSet};

/// Interval of heartbeats and of balancing.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Time after its last heartbeat at which a process holds nothing.
const LEASE_DURATION: Duration = Duration::from_secs(3);
/// Time without a new heartbeat after which others take a process for dead. Longer than
/// [`LEASE_DURATION`], so that its slots are idle before they are taken.
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// Time after which a dead process without slots is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(20);
/// Timeout of reading and balancing, so that the held slots are published again within the lease.
const ROUND_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of members and slots per read.
const READ_LIMIT: usize = 1024;

/// A process's lease of slots, renewed until it is released or dropped.
pub struct SlotLease {
    leased_slots: watch::Receiver<SlotSet>,
    leave: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl SlotLease {
    /// Watches the slots that the process holds.
    pub fn watch_slots(&self) -> watch::Receiver<SlotSet> {
        self.leased_slots.clone()
    }

    /// Releases all slots and ends the lease.
    pub async fn release_slots(self) {
        self.leave.send_replace(true);
        // A task that panicked releases nothing; others take its slots once it counts as dead.
        let _ended = self.task.await;
    }
}

/// Another process's last heartbeat, and when it was seen first.
struct LeaseMember {
    heartbeat_sequence: u64,
    seen_at: Instant,
}

/// Last known message of a slot.
struct LeaseSlot {
    version: u64,
    holder: Option<Uuid>,
}

/// State of the task that keeps the lease.
struct LeaseKeeper {
    inner: Arc<LogCore>,
    own_id: Uuid,
    published: watch::Sender<SlotSet>,
    members: BTreeMap<Uuid, LeaseMember>,
    slots: BTreeMap<u32, LeaseSlot>,
    last_heartbeat: Option<Instant>,
    health: ComponentHealth,
}

/// Starts the lease; `health` reports whether heartbeats and balancing work.
pub(super) fn start_lease(inner: Arc<LogCore>, health: ComponentHealth) -> SlotLease {
    let (share, watched) = watch::channel(SlotSet::NONE);
    let (leave, mut left) = watch::channel(false);
    let mut keeper = LeaseKeeper {
        inner,
        own_id: Uuid::now_v7(),
        published: share,
        members: BTreeMap::new(),
        slots: BTreeMap::new(),
        last_heartbeat: None,
        health,
    };
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                () = keeper.run_round() => {}
                _ = left.wait_for(|left| *left) => break,
            }
            let pause = tokio::time::timeout(HEARTBEAT_INTERVAL, left.wait_for(|left| *left));
            if pause.await.is_ok() {
                break;
            }
        }
        keeper.release_all_slots().await;
    });
    SlotLease { leased_slots: watched, leave, task }
}

impl LeaseKeeper {
    /// One round: heartbeat, balancing, publication. What fails is repeated by the next round.
    async fn run_round(&mut self) {
        // Taken before the heartbeat is sent, since others count from its arrival at the earliest.
        let begun = Instant::now();
        match self.send_heartbeat().await {
            Ok(()) => self.last_heartbeat = Some(begun),
            Err(NoAnswerError(reason)) => tracing::debug!(reason, "no sign of life this time"),
        }
        let worked = tokio::time::timeout(ROUND_TIMEOUT, self.read_and_balance()).await;
        let worked = worked.unwrap_or_else(|_| Err(NoAnswerError("it takes too long".into())));
        match worked {
            Ok(()) => self.health.report_success(),
            Err(NoAnswerError(reason)) => {
                tracing::debug!(reason, "the slots are not looked at this time");
                self.health.report_failure(&reason);
            }
        }
        self.publish_held_slots();
    }

    async fn read_and_balance(&mut self) -> Result<(), NoAnswerError> {
        self.read_members_and_slots().await?;
        self.balance_slots().await
    }

    /// Publishes the held slots, or none if the lease has expired.
    fn publish_held_slots(&self) {
        let may = self.last_heartbeat.is_some_and(|alive| alive.elapsed() < LEASE_DURATION);
        let held = if may { self.leased_slots() } else { SlotSet::NONE };
        self.published.send_if_modified(|share| std::mem::replace(share, held) != held);
    }

    fn leased_slots(&self) -> SlotSet {
        let mine = self.slots.iter().filter(|(_, slot)| slot.holder == Some(self.own_id));
        mine.map(|(number, _)| *number).collect()
    }

    async fn send_heartbeat(&self) -> Result<(), NoAnswerError> {
        let subject = self.inner.names.derived_subject(&format!("share.member.{}", self.own_id));
        let (stream, sign) = (&self.inner.names.derived, Bytes::from_static(b"."));
        let sent = self.inner.api.publish_message(stream, &subject, None, sign);
        match tokio::time::timeout(HEARTBEAT_INTERVAL, sent).await {
            Ok(PublishOutcome::Stored { .. }) => Ok(()),
            other => Err(NoAnswerError(format!("{other:?}"))),
        }
    }

    /// Reads all members and slots. Any replica will do: slots are taken by version.
    async fn read_members_and_slots(&mut self) -> Result<(), NoAnswerError> {
        let (api, names) = (&self.inner.api, &self.inner.names);
        let all = names.derived_subject("share.>");
        let messages = api.read_batch(&names.derived, &all, 1, READ_LIMIT).await?;
        let (members, slots) =
            (names.derived_subject("share.member."), names.derived_subject("share.slot."));
        for message in messages {
            if let Some(id) = message.subject.strip_prefix(members.as_str()) {
                let Ok(id) = id.parse() else { continue };
                let fresh =
                    LeaseMember { heartbeat_sequence: message.sequence, seen_at: Instant::now() };
                // A lagging replica may return an older heartbeat, which must not count as a new
                // one.
                match self.members.get(&id) {
                    Some(known) if known.heartbeat_sequence >= message.sequence => {}
                    _ => drop(self.members.insert(id, fresh)),
                }
            } else if let Some(number) = message.subject.strip_prefix(slots.as_str()) {
                let Ok(number) = number.parse() else { continue };
                let holder = std::str::from_utf8(&message.payload).ok();
                let holder = holder.and_then(|holder| holder.parse().ok());
                let slot = LeaseSlot { version: message.sequence, holder };
                match self.slots.get(&number) {
                    Some(known) if known.version >= slot.version => {}
                    _ => drop(self.slots.insert(number, slot)),
                }
            }
        }
        self.forget_dead_members().await;
        Ok(())
    }

    /// Forgets members that are long dead and hold nothing. Others do the same at the same time; a
    /// member whose heartbeat is still there is found again by the next round.
    async fn forget_dead_members(&mut self) {
        let holds = |id: &Uuid| self.slots.values().any(|slot| slot.holder == Some(*id));
        let old = |(id, member): (&Uuid, &LeaseMember)| {
            let is_old = member.seen_at.elapsed() > FORGET_AFTER && !holds(id);
            is_old.then_some((*id, member.heartbeat_sequence))
        };
        let gone: Vec<(Uuid, u64)> = self.members.iter().filter_map(old).collect();
        for (id, sign) in gone {
            self.members.remove(&id);
            if let Err(error) = self.inner.api.erase_message(&self.inner.names.derived, sign).await
            {
                tracing::debug!(reason = error.0, "a dead member is not forgotten this time");
            }
        }
    }

    fn is_alive(&self, id: Uuid) -> bool {
        id == self.own_id
            || self.members.get(&id).is_some_and(|member| member.seen_at.elapsed() < DEAD_AFTER)
    }

    /// Takes free slots up to this process's part, or releases those above it.
    async fn balance_slots(&mut self) -> Result<(), NoAnswerError> {
        if self.last_heartbeat.is_none_or(|alive| alive.elapsed() >= LEASE_DURATION) {
            return Ok(());
        }
        let others = self.members.keys().filter(|id| **id != self.own_id && self.is_alive(**id));
        let part = SLOT_COUNT.div_ceil(1 + u32::try_from(others.count()).unwrap_or(SLOT_COUNT));
        let held = self.leased_slots();
        if held.slot_count() > part {
            for number in (0..SLOT_COUNT).filter(|n| held.contains_slot(*n)).skip(part as usize) {
                // This process stops working on the slot before others may take it.
                self.published.send_modify(|share| *share = share.without_slot(number));
                self.write_slot(number, None).await?;
            }
            return Ok(());
        }
        let is_free = |number: &u32| match self.slots.get(number) {
            Some(LeaseSlot { holder: Some(holder), .. }) => !self.is_alive(*holder),
            _ => true,
        };
        // Each process starts at a different slot, so that rivals rarely meet.
        let first = u32::try_from(self.own_id.as_u128() % u128::from(SLOT_COUNT)).unwrap_or(0);
        let wanted = (part - held.slot_count()) as usize;
        let around = (0..SLOT_COUNT).map(|number| (number + first) % SLOT_COUNT);
        let free: Vec<u32> = around.filter(is_free).take(wanted).collect();
        for number in free {
            self.write_slot(number, Some(self.own_id)).await?;
        }
        Ok(())
    }

    /// Writes a slot if nobody else has since it was read. Until the outcome is known, the slot
    /// counts as not held.
    async fn write_slot(&mut self, number: u32, holder: Option<Uuid>) -> Result<(), NoAnswerError> {
        // Removed until the outcome is known, so that an unanswered write never counts as held.
        let known = self.slots.remove(&number);
        let version = known.as_ref().map_or(0, |slot| slot.version);
        let stream = &self.inner.names.derived;
        let subject = self.inner.names.derived_subject(&format!("share.slot.{number}"));
        let body = holder.map_or_else(String::new, |holder| holder.to_string());
        match self.inner.api.publish_message(stream, &subject, Some(version), body.into()).await {
            PublishOutcome::Stored { sequence } => {
                self.slots.insert(number, LeaseSlot { version: sequence, holder });
                Ok(())
            }
            PublishOutcome::NotNow(_) => {
                self.slots.extend(known.map(|slot| (number, slot)));
                Ok(())
            }
            // Another process was faster; the next round shows which.
            PublishOutcome::WrongVersion => Ok(()),
            other => Err(NoAnswerError(format!("{other:?}"))),
        }
    }

    /// Releases all held slots.
    async fn release_all_slots(&mut self) {
        let held = self.leased_slots();
        self.published.send_replace(SlotSet::NONE);
        for number in (0..SLOT_COUNT).filter(|number| held.contains_slot(*number)) {
            if let Err(NoAnswerError(reason)) = self.write_slot(number, None).await {
                tracing::debug!(reason, "the slots are left to be found");
                return;
            }
        }
    }
}

impl Drop for LeaseKeeper {
    /// Whatever ends the task, also a panic: no more heartbeats are sent, so nothing is held.
    fn drop(&mut self) {
        self.health.report_failure(&"the process does not share in the work any more");
        self.published.send_replace(SlotSet::NONE);
    }
}
