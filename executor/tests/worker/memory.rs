//! Agents that remember: a model that stores, recalls and forgets by tools, over a restart, and
//! learns nothing of other subjects or tenants.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use convergio_domain::event::Event;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::id::TenantId;
use convergio_domain::memory::event::MemoryEvent;
use convergio_domain::memory::{self, RecalledMemory, Subject};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::event::RunEvent;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::LogWriter;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_executor::memory::{MemoryPort, MemorySearch};
use convergio_projections::MemoryIndexes;
use serde_json::{Value, json};

use crate::harness::{Ended, Platform, tenant};
use crate::script::{Line, Script};

const TUTOR: &str = r#"
name: tutor
inputs: {type: object, required: [pupil], properties: {pupil: {type: string}}}
output: "{{ nodes.tutor.output }}"
nodes:
  - id: tutor
    agent:
      model: local
      prompt: What do you know about maps?
      tools: [memory.store, memory.recall, memory.forget]
      memory: {subject: "{{ inputs.pupil }}", max_tokens: 100}
"#;

/// Anna's memory, as it is stored and as it is asked for.
const STORE: (&str, &str) =
    ("memory-store", r#"{"subject": "pupil:anna", "text": "Anna draws maps of old cities."}"#);
const RECALL: (&str, &str) = ("memory-recall", r#"{"subject": "pupil:anna", "query": "maps"}"#);

/// The read models' memories, as the binary gives them to its executor.
struct Index(MemoryIndexes);

#[async_trait]
impl MemorySearch for Index {
    async fn recall_memories(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        question: &str,
        now: Timestamp,
        budget_tokens: u32,
    ) -> Result<Vec<RecalledMemory>, UnsealedFailure> {
        let found = self.0.recall_memories(tenant, subject, question, now, budget_tokens).await;
        Ok(found.expect("the log works"))
    }
}

/// One life of the platform on a folder: a run by an agent whose model says these lines.
struct Life {
    ended: Ended,
    script: Arc<Script>,
    log: Arc<dyn LogWriter>,
}

async fn life(folder: &Path, tenant: &TenantId, pupil: &str, lines: Vec<Line>) -> Life {
    let log: Arc<dyn LogWriter> =
        Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder)).expect("the folder is free"));
    let (script, provider) = Script::serve(lines).await;
    let mut platform = Platform::on(Arc::clone(&log), vec![provider]);
    platform.tenant = tenant.clone();
    platform.memory = MemoryPort(Some(Arc::new(Index(MemoryIndexes::new(log.clone())))));
    let ended = platform.execute(TUTOR, &json!({ "pupil": pupil })).await.completed();
    Life { ended, script, log }
}

impl Life {
    /// What the model is told before its first turn.
    fn system(&self) -> String {
        let first = self.script.messages(0).remove(0);
        if first["role"] == "system" { first["content"].to_string() } else { String::new() }
    }

    /// What the tools answered by the n-th request.
    fn told(&self, number: usize) -> Vec<String> {
        let messages = self.script.messages(number);
        let tools = messages.iter().filter(|message| message["role"] == "tool");
        tools.map(|message| message["content"].as_str().expect("a text").to_owned()).collect()
    }
}

fn says(text: &'static str) -> Line {
    Line::Text(text)
}

fn stream(tenant: &TenantId) -> StreamKey {
    memory::memory_stream(tenant, &"pupil:anna".parse().expect("a subject"))
}

/// What was stored of Anna: the ids, and where the texts lie.
async fn stored(log: &dyn LogWriter, tenant: &TenantId) -> Vec<(String, PayloadRef)> {
    let records = log.read_stream(&stream(tenant), Seq(0), 100).await.expect("readable");
    let events = records.iter().flat_map(|record| &record.body.events);
    let stored = events.filter_map(|event| match event {
        Event::Memory(MemoryEvent::MemoryStored(new)) => Some((json!(new.memory), new.text)),
        _ => None,
    });
    stored.map(|(id, text)| (id.as_str().expect("an id").to_owned(), text)).collect()
}

#[tokio::test]
async fn what_an_agent_stores_is_recalled_after_a_restart_and_gone_when_it_forgets() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let first = vec![Line::Calls(vec![STORE]), Line::Calls(vec![RECALL]), says("noted")];
    let first = life(path, &tenant(), "pupil:anna", first).await;
    assert!(!first.system().contains("maps of old cities"), "nothing is known yet");
    assert!(first.told(2)[1].contains("maps of old cities"), "{:?}", first.told(2));
    drop(first);

    let again = life(path, &tenant(), "pupil:anna", vec![says("she draws maps")]).await;
    assert!(again.system().contains("Anna draws maps of old cities."), "{}", again.system());
    let (id, text) = stored(&*again.log, &tenant()).await.remove(0);
    assert!(again.log.read_payload(&stream(&tenant()), text).await.expect("readable").is_some());
    drop(again);

    // The model names the memory by the id that it was told.
    let arguments = json!({"subject": "pupil:anna", "id": id}).to_string().leak();
    let forget: (&str, &str) = ("memory-forget", arguments);
    let lines = vec![Line::Calls(vec![forget]), Line::Calls(vec![RECALL]), says("gone")];
    let forgets = life(path, &tenant(), "pupil:anna", lines).await;
    assert!(forgets.system().contains(&id), "the id is told: {}", forgets.system());
    assert_eq!(forgets.told(2), [r#"{"forgotten":true}"#, "[]"]);
    let erased = forgets.log.read_payload(&stream(&tenant()), text).await.expect("readable");
    assert!(erased.is_none(), "its text is erased");
    drop(forgets);

    let after = life(path, &tenant(), "pupil:anna", vec![says("nothing")]).await;
    assert!(!after.system().contains("maps of old cities"), "{}", after.system());
}

#[tokio::test]
async fn an_agent_learns_nothing_of_other_subjects_and_tenants() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    drop(life(path, &tenant(), "pupil:anna", vec![Line::Calls(vec![STORE]), says("noted")]).await);

    let lines = vec![Line::Calls(vec![RECALL, STORE]), says("I know nothing")];
    let other = life(path, &tenant(), "pupil:ben", lines).await;
    assert!(!other.system().contains("Anna"), "{}", other.system());
    let told = other.told(1);
    assert!(told.len() == 2 && told.iter().all(|told| told.contains("own subject")), "{told:?}");
    assert_eq!(other.ended.count("run.tool_call.denied.v1"), 2);
    assert_eq!(stored(&*other.log, &tenant()).await.len(), 1, "nothing was stored of her");
    drop(other);

    let elsewhere: TenantId = "elsewhere".parse().expect("a name");
    let lines = vec![Line::Calls(vec![RECALL]), says("I know nothing")];
    let theirs = life(path, &elsewhere, "pupil:anna", lines).await;
    assert!(!theirs.system().contains("Anna"), "{}", theirs.system());
    assert_eq!(theirs.told(1), ["[]"]);
    assert_eq!(theirs.ended.output, Value::from("I know nothing"));
}

#[tokio::test]
async fn a_step_whose_tool_is_not_pure_has_an_intent_with_its_arguments() {
    const MANIFEST: &str = "name: keeps\nnodes:\n  \
        - {id: trims, tool: text.trim, with: {text: \" tea \"}}\n  \
        - {id: store, tool: memory.store, with: {subject: ann, \
           text: \"likes {{ nodes.trims.output }}\"}}\n";
    let mut platform = Platform::new();
    let run = platform.create(MANIFEST, &json!({})).await;
    platform.start();
    platform.ended(&run).await;
    let events = platform.events(&run).await;
    let intents = events.iter().filter_map(|event| match event {
        RunEvent::ToolIntended(intended) => Some(intended),
        _ => None,
    });
    let intents: Vec<_> = intents.collect();
    let [intended] = intents[..] else { panic!("one intent, and not {intents:?}") };
    assert_eq!(
        (intended.name.as_str(), intended.step.to_string()),
        ("memory.store", "store".into())
    );
    assert_eq!(intended.idempotency_key, Some(format!("{}/store", run.stream_name())));
    let arguments = platform.repository.read_payload(&run, intended.arguments).await;
    let arguments: Value =
        serde_json::from_slice(&arguments.expect("readable").expect("there")).expect("JSON");
    assert_eq!(arguments, json!({"subject": "ann", "text": "likes tea"}));
    platform.stop().await;
}
