//! Transcripts: what a conversation costs on disk, and that every prompt comes back byte for byte.

use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::decider::{Decider, DecisionContext, RecordedEvent, Wake};
use convergio_domain::event::Event;
use convergio_domain::payload::{PayloadPurpose, PayloadRef, PayloadSlot};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::archive::{self, ImportMode};
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{
    EventLog, LoadedStream, MemoryLog, Payload, PayloadReader, Repository, SystemClock,
};
use convergio_test_support::nats::{Cluster, KEY, SyncMode};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};

use crate::support::{Log, new_event, new_stream};

const TURNS: usize = 400;
/// Bytes of a question, and of an answer.
const SAID: usize = 1024;
const TAIL: &str = "],\"model\":\"test\",\"max_tokens\":1000,\"temperature\":0,\"stream\":true}";

/// A noun of which only the number of its events counts.
struct Talk;

impl Decider for Talk {
    type State = u64;
    type Command = ();
    type Event = Event;
    type Rejection = std::convert::Infallible;

    fn decide(
        _: &u64,
        (): (),
        _: &DecisionContext,
        next: Seq,
    ) -> Result<Vec<Event>, Self::Rejection> {
        Ok(vec![new_event(&next.to_string())])
    }

    fn evolve(state: &mut u64, recorded: RecordedEvent<'_>) {
        *state = recorded.seq.0;
    }

    fn next_wake(_: &u64) -> Wake {
        Wake::Now
    }
}

fn context() -> DecisionContext {
    DecisionContext { now: Timestamp(7), actor: "tester".parse().expect("a name") }
}

fn payload(purpose: PayloadPurpose, bytes: &[u8]) -> Payload {
    let (bytes, media_type) = (Bytes::copy_from_slice(bytes), "application/json".to_owned());
    Payload { bytes, media_type, purpose, subject: None }
}

/// Text that hardly compresses: six bits in each byte say nothing about the others.
fn noise(seed: &mut u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .";
    let letter = |_| {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        char::from(LETTERS[(*seed >> 40) as usize % 64])
    };
    (0..SAID).map(letter).collect()
}

/// A conversation as it is kept: each commit holds the last answer, as the output of its step, and
/// the whole next prompt.
struct Conversation {
    repository: Repository,
    talk: LoadedStream<Talk>,
    messages: String,
    seed: u64,
    prompts: Vec<(PayloadRef, Vec<u8>)>,
}

impl Conversation {
    async fn begin(log: Log, stream: &StreamKey) -> Self {
        let repository = Repository::new(log, Arc::new(SystemClock));
        let talk = repository.load(stream).await.expect("readable");
        let messages = "{\"messages\":[{\"role\":\"system\",\"content\":\"be brief\"}".to_owned();
        Self { repository, talk, messages, seed: 99, prompts: Vec::new() }
    }

    /// Goes on with a repository that knows nothing of what was said.
    async fn resumed(self, log: Log) -> Self {
        let repository = Repository::new(log, Arc::new(SystemClock));
        let talk = repository.load(&self.talk.stream).await.expect("readable");
        Self { repository, talk, ..self }
    }

    async fn turn(&mut self) {
        let (question, answer) = (noise(&mut self.seed), noise(&mut self.seed));
        let said = [("assistant", &answer), ("user", &question)];
        for (role, text) in said {
            self.messages += &format!(",{{\"role\":\"{role}\",\"content\":\"{text}\"}}");
        }
        let prompt = format!("{}{TAIL}", self.messages).into_bytes();
        let next = Seq(self.talk.head.map_or(0, |head| head.seq.0) + 1);
        let output = payload(PayloadPurpose::Output, format!("\"{answer}\"").as_bytes());
        let payloads = vec![output, payload(PayloadPurpose::Prompt, &prompt)];
        let written = self.repository.commit(&mut self.talk, (), payloads, &context()).await;
        written.expect("written");
        self.prompts.push((PayloadSlot(1).to_payload_ref(next), prompt));
    }

    /// Reads prompts again: the last one, and every so many.
    async fn check(&self, log: &dyn EventLog, every: usize) {
        for (reference, prompt) in self.prompts.iter().rev().step_by(every) {
            let read = log.read_payload(&self.talk.stream, *reference).await.expect("readable");
            assert!(read.expect("kept") == *prompt, "{reference} is not what was sent");
        }
    }
}

/// Bytes that a turn adds to the conversation: 2 KiB, each part of which is stored twice over, as
/// an output and in the next prompt, and said again in every later prompt.
#[tokio::test(flavor = "multi_thread")]
async fn four_hundred_turns_cost_what_is_new_in_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let stream = new_stream();
    let open = || Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).expect("opens"));
    let log = open();
    let mut conversation = Conversation::begin(log.clone(), &stream).await;
    for _ in 0..TURNS {
        conversation.turn().await;
    }
    log.close().await.expect("ends");
    let files = std::fs::read_dir(folder.path()).expect("a folder");
    let sizes = files.map(|file| file.expect("a file").metadata().expect("a file").len());
    let (bytes, said) = (sizes.sum::<u64>() as f64, (TURNS * 2 * SAID) as f64);
    let sent: usize = conversation.prompts.iter().map(|(_, prompt)| prompt.len()).sum();
    let log = open();
    let start = std::time::Instant::now();
    let (last, _) = conversation.prompts.last().expect("a prompt");
    log.read_payload(&stream, *last).await.expect("readable").expect("kept");
    println!(
        "{TURNS} turns: {said} bytes said, {sent} sent, {bytes} on disk: {:.2} times; the last \
         prompt read in {:?}",
        bytes / said,
        start.elapsed()
    );
    conversation.check(&*log, 40).await;
    assert!(bytes <= 1.3 * said, "{bytes} bytes on disk for {said} bytes said");
}

/// Of each prompt: whether it is built on an earlier one.
async fn shared(log: &dyn EventLog, stream: &StreamKey) -> Vec<bool> {
    let records = log.read_stream(stream, Seq(0), 10_000).await.expect("readable");
    let metas = records.iter().flat_map(|record| &record.body.payloads);
    let prompts = metas.filter(|meta| meta.purpose == PayloadPurpose::Prompt);
    prompts.map(|meta| meta.reuse.as_ref().is_some_and(|reuse| reuse.base.is_some())).collect()
}

async fn goes_on(log: Log) {
    let stream = new_stream();
    let mut conversation = Conversation::begin(log.clone(), &stream).await;
    for _ in 0..3 {
        conversation.turn().await;
    }
    conversation = conversation.resumed(log.clone()).await;
    // The first word after a restart is an outcome, without a prompt.
    let outcome = vec![payload(PayloadPurpose::Output, noise(&mut 7).as_bytes())];
    let talk = &mut conversation.talk;
    conversation.repository.commit(talk, (), outcome, &context()).await.expect("written");
    for _ in 0..3 {
        conversation.turn().await;
    }
    assert_eq!(shared(&*log, &stream).await, [false, true, true, true, true, true]);
    conversation.check(&*log, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transcript_goes_on_after_a_restart() {
    goes_on(Arc::new(MemoryLog::new())).await;
    let folder = tempfile::tempdir().expect("a folder");
    goes_on(Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).expect("opens"))).await;
    let cluster = Cluster::start(1, SyncMode::Always);
    goes_on(Arc::new(cluster.log("T").await)).await;
}

/// What is told of a conversation's prompts: whether each is there.
async fn kept(log: &dyn EventLog, conversation: &Conversation) -> Vec<bool> {
    let mut kept = Vec::new();
    for (reference, prompt) in &conversation.prompts {
        let read = log.read_payload(&conversation.talk.stream, *reference).await.expect("readable");
        assert!(read.as_ref().is_none_or(|read| read == prompt), "{reference} is another");
        kept.push(read.is_some());
    }
    kept
}

async fn erased_together(log: Log) {
    let mut conversation = Conversation::begin(log.clone(), &new_stream()).await;
    for _ in 0..4 {
        conversation.turn().await;
    }
    let stream = conversation.talk.stream.clone();
    let (third, _) = conversation.prompts[2];
    assert!(conversation.repository.erase_payload(&stream, third).await.expect("erased"));
    assert_eq!(kept(&*log, &conversation).await, [true, true, false, false]);
    conversation.turn().await;
    let after = [true, true, false, false, true];
    assert_eq!(kept(&*log, &conversation).await, after, "nothing is built on what is erased");
    // The answer that the second prompt quotes, and each after it that is not built on another.
    let answer = PayloadRef { index: 0, ..conversation.prompts[1].0 };
    assert!(conversation.repository.erase_payload(&stream, answer).await.expect("erased"));
    assert_eq!(kept(&*log, &conversation).await, [true, false, false, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_built_on_an_erased_payload_is_erased_with_it() {
    erased_together(Arc::new(MemoryLog::new())).await;
    let folder = tempfile::tempdir().expect("a folder");
    erased_together(Arc::new(
        EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).expect("opens"),
    ))
    .await;
    let cluster = Cluster::start(1, SyncMode::Always);
    erased_together(Arc::new(cluster.log("E").await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_very_deep_is_begun_anew() {
    let (log, stream) = (Arc::new(MemoryLog::new()), new_stream());
    let mut conversation = Conversation::begin(log.clone(), &stream).await;
    conversation.messages += ",{\"role\":\"user\",\"content\":\"";
    let mut sent = Vec::new();
    for number in 0..600_u64 {
        conversation.messages += &format!("{number:0>8}");
        let mut prompt = conversation.messages.clone();
        prompt.insert_str(1, &"x".repeat(2000));
        let payloads = vec![payload(PayloadPurpose::Prompt, prompt.as_bytes())];
        let talk = &mut conversation.talk;
        conversation.repository.commit(talk, (), payloads, &context()).await.expect("written");
        sent.push(prompt);
    }
    let whole = shared(&*log, &stream).await.iter().filter(|shared| !**shared).count();
    assert_eq!(whole, 2, "one at the beginning, one in between");
    for (seq, prompt) in (1..).zip(&sent) {
        let read = log.read_payload(&stream, PayloadRef { seq: Seq(seq), index: 0 }).await;
        assert_eq!(read.expect("readable").expect("kept"), prompt.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_has_the_same_prompts() {
    let folder = || tempfile::tempdir().expect("a folder");
    let (from, to, files) = (folder(), folder(), folder());
    for place in [&from, &to] {
        std::fs::write(place.path().join("payload.key"), KEY).expect("written");
    }
    let stream = new_stream();
    let log = Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(from.path())).expect("opens"));
    let mut conversation = Conversation::begin(log.clone(), &stream).await;
    for _ in 0..5 {
        conversation.turn().await;
    }
    archive::export_archive(&*log, &KEY, files.path(), None).await.expect("exported");
    let copy = EmbeddedLog::open(&EmbeddedConfig::new(to.path())).expect("opens");
    archive::import_archive(&copy, &KEY, files.path(), ImportMode::Restore)
        .await
        .expect("imported");
    conversation.check(&copy, 1).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever prompts follow each other: they come back, from any repository.
    #[test]
    fn any_prompts_come_back(
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), "[a-c]{0,400}", 0..4_u8),
            1..25,
        ),
    ) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let (log, stream) = (Arc::new(MemoryLog::new()), new_stream());
            let mut repository = Repository::new(log.clone(), Arc::new(SystemClock));
            let mut talk = repository.load::<Talk>(&stream).await.expect("readable");
            let mut text = "0123456789".repeat(150);
            let mut sent = Vec::new();
            for (a, b, new, kind) in &edits {
                let (a, b) = (a.index(text.len()), b.index(text.len()));
                text.replace_range(a.min(b)..a.max(b), &new.repeat(3));
                if text.len() < 1500 {
                    text += &"abcdefghijklmnop".repeat(100);
                }
                if *kind == 0 {
                    repository = Repository::new(log.clone(), Arc::new(SystemClock));
                }
                let purpose = match kind {
                    1 => PayloadPurpose::Output,
                    _ => PayloadPurpose::Prompt,
                };
                let said = [purpose, PayloadPurpose::Prompt];
                let payloads = said.map(|purpose| payload(purpose, text.as_bytes())).to_vec();
                repository.commit(&mut talk, (), payloads, &context()).await.expect("written");
                sent.push(text.clone());
            }
            for (seq, text) in (1..).zip(&sent) {
                for index in 0..2 {
                    let read = log.read_payload(&stream, PayloadRef { seq: Seq(seq), index }).await;
                    prop_assert_eq!(&read.expect("readable").expect("kept")[..], text.as_bytes());
                }
            }
            Ok(())
        })?;
    }
}
