//! A run under test in a data folder of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use convergio_domain::stream::StreamKey;
use convergio_eventstore::LogWriter;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use uuid::Uuid;

use crate::crash_point::CrashPoint;
use crate::engine_run::{GraphUnderTest, run_engine_process};

/// A data folder with one run that has not started.
pub(crate) struct CrashTestRun {
    folder: PathBuf,
    pub(crate) log: Arc<dyn LogWriter>,
    pub(crate) run: StreamKey,
}

impl CrashTestRun {
    pub(crate) async fn new(
        graph_under_test: &GraphUnderTest,
        parent: &Path,
    ) -> anyhow::Result<Self> {
        let folder = parent.join(format!("life-{}", Uuid::now_v7()));
        let log = open_log(&folder)?;
        let run = graph_under_test.create_run(&log).await?;
        Ok(Self { folder, log, run })
    }

    /// Runs a process on the folder and kills it; returns whether it reached the crash point.
    pub(crate) async fn run_killed_process(
        self,
        subject: &GraphUnderTest,
        point: CrashPoint,
    ) -> anyhow::Result<(Self, bool)> {
        // Only one process may hold the folder's lock.
        self.log.close().await?;
        let Self { folder, log, run } = self;
        drop(log);
        let killed = run_engine_process(&folder, subject, point).await?;
        let log = open_log(&folder)?;
        Ok((Self { folder, log, run }, killed))
    }

    pub(crate) async fn close_and_remove(self) -> anyhow::Result<()> {
        self.log.close().await?;
        drop(self.log);
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }
}

fn open_log(folder: &Path) -> anyhow::Result<Arc<dyn LogWriter>> {
    Ok(Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder))?))
}
