//! Memories: what is recalled, what is forgotten, and that an index made anew answers the same.

use std::sync::Arc;

use convergio_application::{Caller, MemoryWrite, UseCases};
use convergio_domain::id::TenantId;
use convergio_domain::memory::{self, MemoryId, MemoryNoun, Subject};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{LogWriter, MemoryLog, Repository, SystemClock};
use convergio_projections::MemoryIndexes;

const DAY_MS: i64 = 24 * 3600 * 1000;
const NOW: Timestamp = Timestamp(100 * DAY_MS);

struct Mind {
    log: Arc<dyn LogWriter>,
    repository: Repository,
    memories: MemoryIndexes,
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a name")
}

fn subject(name: &str) -> Subject {
    name.parse().expect("a subject")
}

fn caller(of: &str) -> Caller {
    Caller::new(tenant(of), "tester".parse().expect("a name"))
}

impl Mind {
    fn new() -> Self {
        let log: Arc<dyn LogWriter> = Arc::new(MemoryLog::new());
        let repository = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
        let memories = MemoryIndexes::new(log.clone());
        Self { log, repository, memories }
    }

    fn use_cases(&self, day: i64) -> UseCases<'_> {
        UseCases::new(&self.repository).with_time(Timestamp(day * DAY_MS))
    }

    async fn store(
        &self,
        of: &str,
        about: &str,
        text: &str,
        day: i64,
        importance: u16,
    ) -> MemoryId {
        let (tenant, subject) = (tenant(of), subject(about));
        let memory = MemoryId::from_call(&tenant, &format!("{about} {text}"));
        let what = MemoryWrite { subject: &subject, memory, text, importance };
        self.use_cases(day).store_memory(&caller(of), what).await.expect("remembered");
        memory
    }

    async fn recalled(&self, of: &str, about: &str, question: &str, tokens: u32) -> Vec<String> {
        let (tenant, subject) = (tenant(of), subject(about));
        let found = self.memories.recall_memories(&tenant, &subject, question, NOW, tokens).await;
        found.expect("recalled").into_iter().map(|item| item.text).collect()
    }

    /// Everything that can be asked, of the index as it is and of one made anew.
    async fn same_anew(&self, of: &str, about: &str) -> usize {
        let (tenant, subject) = (tenant(of), subject(about));
        let anew = MemoryIndexes::new(self.log.clone());
        for question in ["maps", "", "fraction homework", "\"quoted\" AND (odd"] {
            let ask = async |memories: &MemoryIndexes| {
                let found =
                    memories.recall_memories(&tenant, &subject, question, NOW, 10_000).await;
                found.expect("recalled")
            };
            assert_eq!(ask(&self.memories).await, ask(&anew).await, "{question}");
        }
        let live = self.memories.list_memories(&tenant, &subject, 1000).await.expect("listed");
        assert_eq!(live, anew.list_memories(&tenant, &subject, 1000).await.expect("listed"));
        live.len()
    }
}

#[tokio::test]
async fn what_fits_best_comes_first_and_within_the_budget() {
    let mind = Mind::new();
    let texts = [
        ("Anna struggles with fractions and needs pictures.", 10, 500),
        ("Anna likes maps of old cities.", 90, 500),
        ("Her mother asked for less homework.", 95, 900),
        ("Anna could add fractions today.", 99, 500),
    ];
    for (text, day, importance) in texts {
        mind.store("school", "student:42", text, day, importance).await;
    }
    let found = mind.recalled("school", "student:42", "how is she at fractions?", 1000).await;
    assert_eq!(found.len(), 4);
    assert_eq!(found[..2], [texts[3].0, texts[0].0]);
    // No word is the same: spelling and newness decide.
    let found = mind.recalled("school", "student:42", "mapping a city", 1000).await;
    assert_eq!(found[0], texts[1].0);
    let found = mind.recalled("school", "student:42", "", 1000).await;
    assert_eq!(found[0], texts[2].0, "without a question importance and newness decide");
    let budget = memory::estimate_tokens(texts[3].0);
    assert_eq!(mind.recalled("school", "student:42", "fractions", budget).await, [texts[3].0]);
    let (school, anna) = (tenant("school"), subject("student:42"));
    let listed = mind.memories.list_memories(&school, &anna, 2).await.expect("listed");
    let listed: Vec<&str> = listed.iter().map(|item| item.text.as_str()).collect();
    assert_eq!(listed, [texts[3].0, texts[2].0]);
}

#[tokio::test]
async fn tenants_and_subjects_never_meet() {
    let mind = Mind::new();
    mind.store("one", "student:1", "one's first", 1, 500).await;
    mind.store("one", "student:2", "one's second", 1, 500).await;
    mind.store("two", "student:1", "two's first", 1, 500).await;
    assert_eq!(mind.recalled("one", "student:1", "first second", 1000).await, ["one's first"]);
    assert_eq!(mind.recalled("two", "student:1", "first second", 1000).await, ["two's first"]);
    assert!(mind.recalled("three", "student:1", "first", 1000).await.is_empty());
    // More subjects than indices are kept.
    for number in 0..300 {
        mind.store("many", &format!("s{number}"), &format!("text {number}"), 1, 500).await;
    }
    for number in (0..300).rev() {
        let found = mind.recalled("many", &format!("s{number}"), "text", 1000).await;
        assert_eq!(found, [format!("text {number}")]);
    }
}

#[tokio::test]
async fn an_index_made_anew_answers_as_the_one_that_followed() {
    let mind = Mind::new();
    let mut ids = Vec::new();
    for number in 0..300_i64 {
        let text = format!("note {number} on maps, homework {} and fractions", number % 7);
        let importance = u16::try_from(number % 1000).expect("small");
        ids.push(mind.store("school", "s", &text, number % 90, importance).await);
        if number % 50 == 0 {
            mind.same_anew("school", "s").await;
        }
    }
    let (school, about) = (caller("school"), subject("s"));
    for id in ids.iter().step_by(3) {
        let forgotten = mind.use_cases(99).forget_memory(&school, &about, *id).await;
        assert_eq!(forgotten.expect("forgotten"), Some(true));
    }
    assert_eq!(mind.same_anew("school", "s").await, 200);
}

#[tokio::test]
async fn what_is_forgotten_is_erased_and_what_is_erased_is_forgotten() {
    let mind = Mind::new();
    let (school, about) = (tenant("school"), subject("s"));
    let stream = memory::memory_stream(&school, &about);
    let gone = mind.store("school", "s", "a secret about maps", 1, 500).await;
    let erased = mind.store("school", "s", "another secret about maps", 2, 500).await;
    mind.store("school", "s", "a note about maps", 3, 500).await;
    assert_eq!(mind.recalled("school", "s", "maps", 1000).await.len(), 3);
    let kept = mind.repository.load::<MemoryNoun>(&stream).await.expect("readable").state.memories;

    let forget = async |id| {
        mind.use_cases(4).forget_memory(&caller("school"), &about, id).await.expect("done")
    };
    assert_eq!(forget(gone).await, Some(true));
    assert_eq!(forget(gone).await, Some(false), "again is no mistake");
    assert_eq!(forget(MemoryId::from_call(&school, "never")).await, None);
    assert_eq!(mind.log.read_payload(&stream, kept[&gone].text).await.expect("readable"), None);
    // Erased by somebody who knows nothing of memories.
    assert!(mind.log.erase_payload(&stream, kept[&erased].text).await.expect("erased"));
    assert_eq!(mind.recalled("school", "s", "maps", 1000).await, ["a note about maps"]);
    assert_eq!(mind.same_anew("school", "s").await, 1);
}

#[tokio::test]
async fn a_store_that_is_repeated_is_one_memory_and_limits_hold() {
    let mind = Mind::new();
    let first = mind.store("school", "s", "once", 1, 500).await;
    assert_eq!(mind.store("school", "s", "once", 2, 500).await, first);
    assert_eq!(mind.recalled("school", "s", "once", 1000).await.len(), 1);
    let (school, about) = (tenant("school"), subject("s"));
    let large = "x".repeat(memory::TEXT_LIMIT + 1);
    for (text, importance) in [("", 1), (large.as_str(), 1), ("x", 1001)] {
        let memory = MemoryId::from_call(&school, text);
        let what = MemoryWrite { subject: &about, memory, text, importance };
        let refused = mind.use_cases(1).store_memory(&caller("school"), what).await;
        assert!(refused.is_err(), "{} {importance}", text.len());
    }
    for name in ["", "a b", "ä", &"x".repeat(129)] {
        assert!(name.parse::<Subject>().is_err(), "{name}");
    }
}
