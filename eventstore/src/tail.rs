//! Following the whole log: first the records that exist, then new ones as they arrive.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::error::LogError;
use crate::log::RecordPage;
use crate::record::{Position, Record};

/// Records buffered for followers that fall behind. A follower that lags further reads them from
/// the store.
pub(crate) const BACKLOG: usize = 1024;
/// Records per read while catching up.
const PAGE: usize = 512;

/// Reads a page of the log after a position, up to a limit.
pub(crate) type ReadLogPage =
    Arc<dyn Fn(Position, usize) -> BoxFuture<'static, Result<RecordPage, LogError>> + Send + Sync>;

struct TailFollower {
    read: ReadLogPage,
    live: broadcast::Receiver<Arc<Record>>,
    position: Position,
    page: VecDeque<Arc<Record>>,
    is_behind: bool,
}

/// Follows the log after a position. `live` must have been subscribed before this call, and must
/// carry every record in order, once it can be read.
pub(crate) fn follow_log(
    read: ReadLogPage,
    live: broadcast::Receiver<Arc<Record>>,
    after: Position,
) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    let follower =
        TailFollower { read, live, position: after, page: VecDeque::new(), is_behind: true };
    stream::unfold(Some(follower), |state| async move {
        let mut follower = state?;
        match follower.next_record().await {
            Ok(Some(record)) => Some((Ok(record), Some(follower))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

impl TailFollower {
    async fn next_record(&mut self) -> Result<Option<Arc<Record>>, LogError> {
        loop {
            if let Some(record) = self.page.pop_front() {
                self.position = record.position;
                return Ok(Some(record));
            }
            if self.is_behind {
                let page = (self.read)(self.position, PAGE).await?;
                self.is_behind = !page.records.is_empty();
                self.page = page.records.into();
                continue;
            }
            match self.live.recv().await {
                // Read from the store already: the channel overlaps with the pages.
                Ok(record) if record.position <= self.position => {}
                Ok(record) => self.page.push_back(record),
                // Overrun: the store has what the channel dropped.
                Err(RecvError::Lagged(_)) => self.is_behind = true,
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }
}
