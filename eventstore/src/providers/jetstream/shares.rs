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

use super::api::{NoAnswer, Published};
use super::inner::Inner;
use crate::health::ComponentHealth;
use crate::share::{SLOTS, Share};

/// Interval of heartbeats and of balancing.
const TICK: Duration = Duration::from_secs(1);
/// Time after its last heartbeat at which a process holds nothing.
const LEASE: Duration = Duration::from_secs(3);
/// Time without a new heartbeat after which others take a process for dead. Longer than
/// [`LEASE_DURATION`], so that its slots are idle before they are taken.
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// Time after which a dead process without slots is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(20);
/// Timeout of reading and balancing, so that the held slots are published again within the lease.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Maximum number of members and slots per read.
const LIMIT: usize = 1024;

/// A process's lease of slots, renewed until it is released or dropped.
pub struct Shares {
    share: watch::Receiver<Share>,
    leave: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Shares {
    /// Watches the slots that the process holds.
    pub fn watch(&self) -> watch::Receiver<Share> {
        self.share.clone()
    }

    /// Releases all slots and ends the lease.
    pub async fn leave(self) {
        self.leave.send_replace(true);
        // A task that panicked releases nothing; others take its slots once it counts as dead.
        let _ended = self.task.await;
    }
}

/// Another process's last heartbeat, and when it was seen first.
struct Member {
    sign: u64,
    since: Instant,
}

/// Last known message of a slot.
struct Slot {
    version: u64,
    holder: Option<Uuid>,
}

/// State of the task that keeps the lease.
struct Keeper {
    inner: Arc<Inner>,
    me: Uuid,
    share: watch::Sender<Share>,
    members: BTreeMap<Uuid, Member>,
    slots: BTreeMap<u32, Slot>,
    alive: Option<Instant>,
    health: ComponentHealth,
}

/// Starts the lease; `health` reports whether heartbeats and balancing work.
pub(super) fn join(inner: Arc<Inner>, health: ComponentHealth) -> Shares {
    let (share, watched) = watch::channel(Share::NONE);
    let (leave, mut left) = watch::channel(false);
    let mut keeper = Keeper {
        inner,
        me: Uuid::now_v7(),
        share,
        members: BTreeMap::new(),
        slots: BTreeMap::new(),
        alive: None,
        health,
    };
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                () = keeper.tick() => {}
                _ = left.wait_for(|left| *left) => break,
            }
            let pause = tokio::time::timeout(TICK, left.wait_for(|left| *left));
            if pause.await.is_ok() {
                break;
            }
        }
        keeper.give_back().await;
    });
    Shares { share: watched, leave, task }
}

impl Keeper {
    /// One round: heartbeat, balancing, publication. What fails is repeated by the next round.
    async fn tick(&mut self) {
        // Taken before the heartbeat is sent, since others count from its arrival at the earliest.
        let begun = Instant::now();
        match self.sign_of_life().await {
            Ok(()) => self.alive = Some(begun),
            Err(NoAnswer(reason)) => tracing::debug!(reason, "no sign of life this time"),
        }
        let worked = tokio::time::timeout(LOOK_LIMIT, self.look_and_balance()).await;
        let worked = worked.unwrap_or_else(|_| Err(NoAnswer("it takes too long".into())));
        match worked {
            Ok(()) => self.health.report_success(),
            Err(NoAnswer(reason)) => {
                tracing::debug!(reason, "the slots are not looked at this time");
                self.health.report_failure(&reason);
            }
        }
        self.tell();
    }

    async fn look_and_balance(&mut self) -> Result<(), NoAnswer> {
        self.look().await?;
        self.balance().await
    }

    /// Publishes the held slots, or none if the lease has expired.
    fn tell(&self) {
        let may = self.alive.is_some_and(|alive| alive.elapsed() < LEASE);
        let held = if may { self.held() } else { Share::NONE };
        self.share.send_if_modified(|share| std::mem::replace(share, held) != held);
    }

    fn held(&self) -> Share {
        let mine = self.slots.iter().filter(|(_, slot)| slot.holder == Some(self.me));
        mine.map(|(number, _)| *number).collect()
    }

    async fn sign_of_life(&self) -> Result<(), NoAnswer> {
        let subject = self.inner.names.derived(&format!("share.member.{}", self.me));
        let (stream, sign) = (&self.inner.names.derived, Bytes::from_static(b"."));
        let sent = self.inner.api.publish(stream, &subject, None, sign);
        match tokio::time::timeout(TICK, sent).await {
            Ok(Published::Stored { .. }) => Ok(()),
            other => Err(NoAnswer(format!("{other:?}"))),
        }
    }

    /// Reads all members and slots. Any replica will do: slots are taken by version.
    async fn look(&mut self) -> Result<(), NoAnswer> {
        let (api, names) = (&self.inner.api, &self.inner.names);
        let all = names.derived("share.>");
        let messages = api.batch(&names.derived, &all, 1, LIMIT).await?;
        let (members, slots) = (names.derived("share.member."), names.derived("share.slot."));
        for message in messages {
            if let Some(id) = message.subject.strip_prefix(members.as_str()) {
                let Ok(id) = id.parse() else { continue };
                let fresh = Member { sign: message.sequence, since: Instant::now() };
                // A lagging replica may return an older heartbeat, which must not count as a new
                // one.
                match self.members.get(&id) {
                    Some(known) if known.sign >= message.sequence => {}
                    _ => drop(self.members.insert(id, fresh)),
                }
            } else if let Some(number) = message.subject.strip_prefix(slots.as_str()) {
                let Ok(number) = number.parse() else { continue };
                let holder = std::str::from_utf8(&message.payload).ok();
                let holder = holder.and_then(|holder| holder.parse().ok());
                let slot = Slot { version: message.sequence, holder };
                match self.slots.get(&number) {
                    Some(known) if known.version >= slot.version => {}
                    _ => drop(self.slots.insert(number, slot)),
                }
            }
        }
        self.forget().await;
        Ok(())
    }

    /// Forgets members that are long dead and hold nothing. Others do the same at the same time; a
    /// member whose heartbeat is still there is found again by the next round.
    async fn forget(&mut self) {
        let holds = |id: &Uuid| self.slots.values().any(|slot| slot.holder == Some(*id));
        let old = |(id, member): (&Uuid, &Member)| {
            let is_old = member.since.elapsed() > FORGET_AFTER && !holds(id);
            is_old.then_some((*id, member.sign))
        };
        let gone: Vec<(Uuid, u64)> = self.members.iter().filter_map(old).collect();
        for (id, sign) in gone {
            self.members.remove(&id);
            if let Err(error) = self.inner.api.erase(&self.inner.names.derived, sign).await {
                tracing::debug!(reason = error.0, "a dead member is not forgotten this time");
            }
        }
    }

    fn is_alive(&self, id: Uuid) -> bool {
        id == self.me
            || self.members.get(&id).is_some_and(|member| member.since.elapsed() < DEAD_AFTER)
    }

    /// Takes free slots up to this process's part, or releases those above it.
    async fn balance(&mut self) -> Result<(), NoAnswer> {
        if self.alive.is_none_or(|alive| alive.elapsed() >= LEASE) {
            return Ok(());
        }
        let others = self.members.keys().filter(|id| **id != self.me && self.is_alive(**id));
        let part = SLOTS.div_ceil(1 + u32::try_from(others.count()).unwrap_or(SLOTS));
        let held = self.held();
        if held.count() > part {
            for number in (0..SLOTS).filter(|n| held.holds(*n)).skip(part as usize) {
                // This process stops working on the slot before others may take it.
                self.share.send_modify(|share| *share = share.without(number));
                self.set(number, None).await?;
            }
            return Ok(());
        }
        let is_free = |number: &u32| match self.slots.get(number) {
            Some(Slot { holder: Some(holder), .. }) => !self.is_alive(*holder),
            _ => true,
        };
        // Each process starts at a different slot, so that rivals rarely meet.
        let first = u32::try_from(self.me.as_u128() % u128::from(SLOTS)).unwrap_or(0);
        let wanted = (part - held.count()) as usize;
        let around = (0..SLOTS).map(|number| (number + first) % SLOTS);
        let free: Vec<u32> = around.filter(is_free).take(wanted).collect();
        for number in free {
            self.set(number, Some(self.me)).await?;
        }
        Ok(())
    }

    /// Writes a slot if nobody else has since it was read. Until the outcome is known, the slot
    /// counts as not held.
    async fn set(&mut self, number: u32, holder: Option<Uuid>) -> Result<(), NoAnswer> {
        // Removed until the outcome is known, so that an unanswered write never counts as held.
        let known = self.slots.remove(&number);
        let version = known.as_ref().map_or(0, |slot| slot.version);
        let stream = &self.inner.names.derived;
        let subject = self.inner.names.derived(&format!("share.slot.{number}"));
        let body = holder.map_or_else(String::new, |holder| holder.to_string());
        match self.inner.api.publish(stream, &subject, Some(version), body.into()).await {
            Published::Stored { sequence } => {
                self.slots.insert(number, Slot { version: sequence, holder });
                Ok(())
            }
            Published::NotNow(_) => {
                self.slots.extend(known.map(|slot| (number, slot)));
                Ok(())
            }
            // Another process was faster; the next round shows which.
            Published::WrongVersion => Ok(()),
            other => Err(NoAnswer(format!("{other:?}"))),
        }
    }

    /// Releases all held slots.
    async fn give_back(&mut self) {
        let held = self.held();
        self.share.send_replace(Share::NONE);
        for number in (0..SLOTS).filter(|number| held.holds(*number)) {
            if let Err(NoAnswer(reason)) = self.set(number, None).await {
                tracing::debug!(reason, "the slots are left to be found");
                return;
            }
        }
    }
}

impl Drop for Keeper {
    /// Whatever ends the task, also a panic: no more heartbeats are sent, so nothing is held.
    fn drop(&mut self) {
        self.health.report_failure(&"the process does not share in the work any more");
        self.share.send_replace(Share::NONE);
    }
}
