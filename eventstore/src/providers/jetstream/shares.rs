//! Sharing the slots of a log between processes, without clocks that agree.
//!
//! Each process sends a sign of life every second. One whose sign has not changed for
//! [`DEAD_AFTER`], by the watch of the one who looks, is dead, and its slots are free. A process
//! that could not send its own for the shorter [`LEASE`] holds nothing. Slots change hands by a
//! compare-and-set on a message each; each process takes no more than its part.

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

const TICK: Duration = Duration::from_secs(1);
/// A process without a sign of life for so long holds nothing.
const LEASE: Duration = Duration::from_secs(3);
/// A process whose sign does not change for so long is dead to others. Longer than [`LEASE`].
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// A dead process that holds nothing is forgotten after so long.
const FORGET_AFTER: Duration = Duration::from_secs(20);
/// Looking around and balancing take no longer: what we may hold is told again within the lease.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Members and slots that are read at once.
const LIMIT: usize = 1024;

/// A process's part in the work, renewed until it is left.
pub struct Shares {
    share: watch::Receiver<Share>,
    leave: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Shares {
    /// What the process holds, as it changes.
    pub fn watch(&self) -> watch::Receiver<Share> {
        self.share.clone()
    }

    /// Gives everything back.
    pub async fn leave(self) {
        self.leave.send_replace(true);
        // A task that panicked gives nothing back; its slots are free when it is found dead.
        let _ended = self.task.await;
    }
}

/// What others say of themselves.
struct Member {
    sign: u64,
    since: Instant,
}

/// A slot's message.
struct Slot {
    version: u64,
    holder: Option<Uuid>,
}

struct Keeper {
    inner: Arc<Inner>,
    me: Uuid,
    share: watch::Sender<Share>,
    members: BTreeMap<Uuid, Member>,
    slots: BTreeMap<u32, Slot>,
    alive: Option<Instant>,
    health: ComponentHealth,
}

/// Begins to share; `health` hears whether the process can say that it lives.
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
    /// One look around; what fails is done by the next.
    async fn tick(&mut self) {
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

    /// Says what we hold, if we may.
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

    /// Reads all members and slots; any copy will do: what is taken is taken by version.
    async fn look(&mut self) -> Result<(), NoAnswer> {
        let (api, names) = (&self.inner.api, &self.inner.names);
        let all = names.derived("share.>");
        let messages = api.batch(&names.derived, &all, 1, LIMIT).await?;
        let (members, slots) = (names.derived("share.member."), names.derived("share.slot."));
        for message in messages {
            if let Some(id) = message.subject.strip_prefix(members.as_str()) {
                let Ok(id) = id.parse() else { continue };
                let fresh = Member { sign: message.sequence, since: Instant::now() };
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

    /// Members that are long dead and hold nothing. Others forget them at the same time; one whose
    /// sign is still there is found again by the next look.
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

    /// Takes what is free up to our part, gives back what is above it.
    async fn balance(&mut self) -> Result<(), NoAnswer> {
        if self.alive.is_none_or(|alive| alive.elapsed() >= LEASE) {
            return Ok(());
        }
        let others = self.members.keys().filter(|id| **id != self.me && self.is_alive(**id));
        let part = SLOTS.div_ceil(1 + u32::try_from(others.count()).unwrap_or(SLOTS));
        let held = self.held();
        if held.count() > part {
            for number in (0..SLOTS).filter(|n| held.holds(*n)).skip(part as usize) {
                // Nobody works on it from here on; only then others may.
                self.share.send_modify(|share| *share = share.without(number));
                self.set(number, None).await?;
            }
            return Ok(());
        }
        let is_free = |number: &u32| match self.slots.get(number) {
            Some(Slot { holder: Some(holder), .. }) => !self.is_alive(*holder),
            _ => true,
        };
        // From different ends, so that rivals rarely meet.
        let first = u32::try_from(self.me.as_u128() % u128::from(SLOTS)).unwrap_or(0);
        let wanted = (part - held.count()) as usize;
        let around = (0..SLOTS).map(|number| (number + first) % SLOTS);
        let free: Vec<u32> = around.filter(is_free).take(wanted).collect();
        for number in free {
            self.set(number, Some(self.me)).await?;
        }
        Ok(())
    }

    /// Writes a slot, if nobody else has since we read it. Until it is known what came of that, the
    /// slot is not ours.
    async fn set(&mut self, number: u32, holder: Option<Uuid>) -> Result<(), NoAnswer> {
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
            // Somebody was faster: the next look shows who.
            Published::WrongVersion => Ok(()),
            other => Err(NoAnswer(format!("{other:?}"))),
        }
    }

    /// Writes down that nobody holds what we held.
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
    /// Whatever ends the keeping, a panic too: nobody says any more that we live, so nothing is
    /// ours.
    fn drop(&mut self) {
        self.health.report_failure(&"the process does not share in the work any more");
        self.share.send_replace(Share::NONE);
    }
}
