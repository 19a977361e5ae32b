//! A log that stops answering at one of its appends, as a crash looks to its caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use convergio_eventstore::{
    AppendError, Commit, InterceptedLog, LogError, LogInterceptor, LogRead, LogWriter, StreamHead,
};
use tokio::sync::watch;

use crate::crash_point::{CrashMoment, CrashPoint};

/// The log of an engine that is to crash.
pub(crate) type FaultyLog = InterceptedLog<CrashInterceptor>;

/// Counts the appends of an engine, and lets its log stop answering at `point`. An engine neither
/// reads raw records nor erases or restores: these go through.
pub(crate) struct CrashInterceptor {
    point: Option<CrashPoint>,
    appends: AtomicU64,
    has_crashed: watch::Sender<bool>,
}

impl CrashInterceptor {
    pub(crate) fn new(point: Option<CrashPoint>) -> Self {
        let (is_dead, _) = watch::channel(false);
        Self { point, appends: AtomicU64::new(0), has_crashed: is_dead }
    }

    /// Waits until the log has stopped answering.
    pub(crate) async fn wait_for_crash(&self) {
        let mut is_dead = self.has_crashed.subscribe();
        // The receiver cannot fail: this value owns the sender.
        drop(is_dead.wait_for(|dead| *dead).await);
    }

    /// Number of appends requested so far.
    pub(crate) fn append_count(&self) -> u64 {
        self.appends.load(Ordering::SeqCst)
    }

    /// Never returns after the crash.
    async fn hang_after_crash(&self) {
        if *self.has_crashed.borrow() {
            std::future::pending::<()>().await;
        }
    }

    async fn crash(&self) -> ! {
        self.has_crashed.send_replace(true);
        std::future::pending().await
    }
}

#[async_trait]
impl LogInterceptor for CrashInterceptor {
    async fn before_read(&self, _read: LogRead) -> Result<(), LogError> {
        self.hang_after_crash().await;
        Ok(())
    }

    async fn append(
        &self,
        log: &Arc<dyn LogWriter>,
        commit: Commit,
    ) -> Result<StreamHead, AppendError> {
        self.hang_after_crash().await;
        let number = self.appends.fetch_add(1, Ordering::SeqCst) + 1;
        match self.point.filter(|point| point.commit == number).map(|point| point.moment) {
            None => log.append(commit).await,
            Some(CrashMoment::Before) => self.crash().await,
            Some(CrashMoment::During) => {
                let log = Arc::clone(log);
                // The append races with the kill, so that its outcome is unknown, as in a real
                // crash.
                tokio::spawn(async move { log.append(commit).await });
                self.crash().await
            }
            Some(CrashMoment::After) => {
                // The result is lost with the caller.
                let _unheard = log.append(commit).await;
                self.crash().await
            }
        }
    }
}
