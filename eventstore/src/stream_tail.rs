//! Following one stream: a follower receives its records and no others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use convergio_domain::stream::{Seq, StreamKey};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::commit::LogLimits;
use crate::error::LogError;
use crate::record::Record;

/// Records buffered for a follower that falls behind. A follower that lags further reads them from
/// the store.
const FEED_BACKLOG: usize = 64;
/// Records per read while catching up.
const PAGE: usize = 256;
/// Delay before reading again a store that does not have a record yet which was announced already.
const STORE_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Reads records of the stream whose first event comes after a sequence number, up to a limit.
pub(crate) type ReadStreamPage =
    Box<dyn Fn(Seq, usize) -> BoxFuture<'static, Result<Vec<Arc<Record>>, LogError>> + Send + Sync>;

type Senders = HashMap<StreamKey, broadcast::Sender<Arc<Record>>>;

/// Broadcast channels by stream. Only streams with followers have an entry.
#[derive(Default)]
pub(crate) struct StreamFeeds(Mutex<Senders>);

/// Subscription to one stream's records from now on.
pub(crate) struct StreamFeed {
    records: broadcast::Receiver<Arc<Record>>,
    stream: StreamKey,
    feeds: Weak<StreamFeeds>,
}

impl StreamFeeds {
    fn lock_senders(&self) -> MutexGuard<'_, Senders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a record that can be read already.
    pub(crate) fn publish_record(&self, record: &Arc<Record>) {
        if let Some(sender) = self.lock_senders().get(&record.stream) {
            // The last follower may have just left.
            let _followers = sender.send(Arc::clone(record));
        }
    }

    /// Closes all feeds: the log ends.
    pub(crate) fn close_all(&self) {
        self.lock_senders().clear();
    }

    pub(crate) fn subscribe_stream(self: &Arc<Self>, stream: &StreamKey) -> StreamFeed {
        let mut senders = self.lock_senders();
        let sender =
            senders.entry(stream.clone()).or_insert_with(|| broadcast::channel(FEED_BACKLOG).0);
        let records = sender.subscribe();
        StreamFeed { records, stream: stream.clone(), feeds: Arc::downgrade(self) }
    }
}

impl Drop for StreamFeed {
    fn drop(&mut self) {
        let Some(feeds) = self.feeds.upgrade() else { return };
        let mut senders = feeds.lock_senders();
        // This feed's own receiver is dropped after this function, so it is still counted.
        if senders.get(&self.stream).is_some_and(|sender| sender.receiver_count() <= 1) {
            senders.remove(&self.stream);
        }
    }
}

struct StreamFollower {
    read: ReadStreamPage,
    feed: StreamFeed,
    after: Seq,
    /// Last event that the feed has announced; the store may lag behind it.
    announced_seq: Seq,
    page: VecDeque<Arc<Record>>,
    is_behind: bool,
}

/// Follows a stream: all records that hold events after `after`. `live` must have been subscribed
/// before this call, or records in between would be missed.
pub(crate) fn follow_stream(
    read: ReadStreamPage,
    live: StreamFeed,
    after: Seq,
) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    stream::once(async move {
        let page = match first_page(&read, after).await {
            Ok(page) => page.into(),
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let is_behind = true;
        let follower =
            StreamFollower { read, feed: live, after, announced_seq: after, page, is_behind };
        stream::unfold(Some(follower), |state| async move {
            let mut follower = state?;
            match follower.next_record().await {
                Ok(Some(record)) => Some((Ok(record), Some(follower))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    })
    .flatten()
    .boxed()
}

/// Reads the first page. If `after` lies within a record, that record comes first.
async fn first_page(read: &ReadStreamPage, after: Seq) -> Result<Vec<Arc<Record>>, LogError> {
    let page = read(after, PAGE).await?;
    if after == Seq(0) || page.first().is_some_and(|first| first.first_seq() == after.offset_by(1))
    {
        return Ok(page);
    }
    // A record that holds `after` begins at most one commit's events earlier.
    let mut from = Seq(after.0.saturating_sub(LogLimits::EVENTS as u64));
    loop {
        let mut page = read(from, PAGE).await?;
        let Some(last) = page.last().map(|last| last.last_seq()) else { return Ok(page) };
        page.retain(|record| record.last_seq() > after);
        if !page.is_empty() {
            return Ok(page);
        }
        from = last;
    }
}

impl StreamFollower {
    async fn next_record(&mut self) -> Result<Option<Arc<Record>>, LogError> {
        loop {
            if let Some(record) = self.page.pop_front() {
                self.after = record.last_seq();
                return Ok(Some(record));
            }
            if self.is_behind || self.after < self.announced_seq {
                let page = (self.read)(self.after, PAGE).await?;
                self.is_behind = !page.is_empty();
                self.page = page.into();
                if !self.is_behind && self.after < self.announced_seq {
                    tokio::time::sleep(STORE_RETRY_DELAY).await;
                }
                continue;
            }
            match self.feed.records.recv().await {
                Ok(record) if record.last_seq() <= self.after => {}
                Ok(record) if record.first_seq() == self.after.offset_by(1) => {
                    self.page.push_back(record);
                }
                // A gap: records in between were announced while a page was read, so the store has
                // them.
                Ok(record) => self.announced_seq = record.last_seq(),
                Err(RecvError::Lagged(_)) => self.is_behind = true,
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use convergio_domain::stream::StreamKey;
    use uuid::Uuid;

    use super::StreamFeeds;

    #[test]
    fn only_streams_that_are_followed_are_kept() {
        let feeds = Arc::new(StreamFeeds::default());
        let stream = StreamKey::for_request("acme".parse().expect("a name"), Uuid::from_u128(1));
        let (one, two) = (feeds.subscribe_stream(&stream), feeds.subscribe_stream(&stream));
        drop(one);
        assert_eq!(feeds.lock_senders().len(), 1);
        drop(two);
        assert!(feeds.lock_senders().is_empty());
    }
}
