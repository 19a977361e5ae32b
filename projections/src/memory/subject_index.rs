//! The index of one subject: words, vectors and times in SQLite, ranked by the kernel in one query.

use std::collections::BTreeMap;

use convergio_domain::memory::{MemoryId, RecalledMemory};
use convergio_domain::time::Timestamp;
use convergio_kernel_c::{RankWeights, RankedItem, pack_into_budget, quantise_vector};
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::{MemoryError, functions};

/// Weights of a score in thousandths: words first, then similarity of spelling, then recency and
/// importance. Recency halves every 30 days.
const WEIGHTS: RankWeights = RankWeights {
    text: 500,
    vector: 300,
    recency: 100,
    importance: 100,
    half_life_ms: 30 * 24 * 3600 * 1000,
};
/// Dimensions of a spelling vector: one for each value of a hash's first byte.
const DIMENSIONS: usize = 256;
/// Maximum distinct words of a question that are searched.
const QUESTION_WORDS_LIMIT: usize = 64;

const CREATE_TABLES: &str = "
CREATE TABLE memory (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    text TEXT NOT NULL,
    words INTEGER NOT NULL,
    vector BLOB NOT NULL,
    tokens INTEGER NOT NULL,
    importance INTEGER NOT NULL,
    stored INTEGER NOT NULL
);
CREATE TABLE word (
    word TEXT NOT NULL,
    number INTEGER NOT NULL,
    times INTEGER NOT NULL,
    PRIMARY KEY (word, number)
) WITHOUT ROWID;
CREATE INDEX word_number ON word (number);
";

/// BM25 with k1 = 1.2 and b = 0.75 over the words of a question, then the kernel's score.
const SELECT_BEST: &str = "
WITH total AS (SELECT count(*) AS n, max(avg(words), 1.0) AS mean FROM memory),
found AS (
    SELECT w.number, w.times, count(*) OVER (PARTITION BY w.word) AS holders
    FROM json_each(?1) asked JOIN word w ON w.word = asked.value
),
fit AS (
    SELECT f.number, sum(cvg_weight(t.n, f.holders) * f.times * 2.2
        / (f.times + 1.2 * (0.25 + 0.75 * m.words / t.mean))) AS bm25
    FROM found f JOIN memory m ON m.number = f.number, total t GROUP BY f.number
)
SELECT m.id, m.text, m.tokens, m.importance, m.stored,
    cvg_score(coalesce(fit.bm25, 0.0), cvg_cosine(m.vector, ?2), max(?3 - m.stored, 0),
        m.importance) AS score
FROM memory m LEFT JOIN fit ON fit.number = m.number
ORDER BY score DESC, m.stored DESC, m.number DESC LIMIT ?4";

const SELECT_NEWEST: &str = "SELECT id, text, tokens, importance, stored, 0.0 FROM memory
ORDER BY stored DESC, number DESC LIMIT ?1";

/// A memory to be inserted into the index.
pub(super) struct IndexedMemory<'a> {
    pub(super) id: MemoryId,
    pub(super) text: &'a str,
    pub(super) tokens: u32,
    pub(super) importance: u16,
    pub(super) stored_at: Timestamp,
}

/// The index of one subject's memories.
pub(super) struct SubjectIndex {
    connection: Connection,
}

impl SubjectIndex {
    pub(super) fn new() -> Result<Self, MemoryError> {
        let connection = Connection::open_in_memory()?;
        functions::register_kernel_functions(&connection, WEIGHTS)?;
        connection.execute_batch(CREATE_TABLES)?;
        Ok(Self { connection })
    }

    pub(super) fn insert_memory(&self, memory: &IndexedMemory<'_>) -> Result<(), MemoryError> {
        let words = count_words(memory.text);
        let count: u32 = words.values().sum();
        let sql = "INSERT INTO memory (id, text, words, vector, tokens, importance, stored) \
            VALUES (?, ?, ?, ?, ?, ?, ?)";
        self.connection.prepare_cached(sql)?.execute(params![
            memory.id.0.as_bytes(),
            memory.text,
            count,
            spelling_vector(&words)?,
            memory.tokens,
            memory.importance,
            memory.stored_at.0
        ])?;
        let number = self.connection.last_insert_rowid();
        let sql = "INSERT INTO word (word, number, times) VALUES (?, ?, ?)";
        let mut statement = self.connection.prepare_cached(sql)?;
        for (word, times) in &words {
            statement.execute(params![word, number, times])?;
        }
        Ok(())
    }

    pub(super) fn delete_memory(&self, memory: MemoryId) -> Result<(), MemoryError> {
        let sql = "DELETE FROM word WHERE number = (SELECT number FROM memory WHERE id = ?)";
        // Words first: the second statement removes the number that they are found by.
        self.connection.prepare_cached(sql)?.execute([memory.0.as_bytes()])?;
        let sql = "DELETE FROM memory WHERE id = ?";
        self.connection.prepare_cached(sql)?.execute([memory.0.as_bytes()])?;
        Ok(())
    }

    pub(super) fn newest_memories(&self, limit: usize) -> Result<Vec<RecalledMemory>, MemoryError> {
        let mut statement = self.connection.prepare_cached(SELECT_NEWEST)?;
        let rows = statement.query_map(params![row_limit(limit)], item_from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Memories by score, the best first. A memory without any word of the question may still score
    /// by spelling, recency and importance.
    pub(super) fn best_matches(
        &self,
        question: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<RecalledMemory>, MemoryError> {
        let mut statement = self.connection.prepare_cached(SELECT_BEST)?;
        let words = count_words(question);
        // A long question would make the join slow without changing the ranking much.
        let question_words: Vec<&String> = words.keys().take(QUESTION_WORDS_LIMIT).collect();
        let question_words = serde_json::to_string(&question_words).unwrap_or_default();
        let parameters = params![question_words, spelling_vector(&words)?, now.0, row_limit(limit)];
        let rows = statement.query_map(parameters, item_from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn item_from_row(row: &Row<'_>) -> rusqlite::Result<RecalledMemory> {
    let id: [u8; 16] = row.get(0)?;
    Ok(RecalledMemory {
        id: MemoryId(Uuid::from_bytes(id)),
        text: row.get(1)?,
        tokens: row.get(2)?,
        importance: row.get(3)?,
        stored: Timestamp(row.get(4)?),
        score: row.get(5)?,
    })
}

/// Selects the items of a ranked list that fit into a budget of tokens; the kernel decides.
pub(super) fn pack_memories(
    ranked: Vec<RecalledMemory>,
    budget_tokens: u32,
) -> Vec<RecalledMemory> {
    let numbered_items = (0_u32..).zip(&ranked);
    let candidates: Vec<RankedItem> = numbered_items
        .map(|(item, found)| RankedItem { score: found.score, item, tokens: found.tokens })
        .collect();
    let packed_items = pack_into_budget(&candidates, u64::from(budget_tokens));
    let mut ranked: Vec<Option<RecalledMemory>> = ranked.into_iter().map(Some).collect();
    packed_items.iter().filter_map(|found| ranked.get_mut(found.item as usize)?.take()).collect()
}

/// Lower-case words of a text with the number of times each occurs. Everything but letters and
/// digits separates words.
fn count_words(text: &str) -> BTreeMap<String, u32> {
    let mut words = BTreeMap::new();
    let lower = text.to_lowercase();
    let split = lower.split(|letter: char| !letter.is_alphanumeric());
    for word in split.filter(|word| !word.is_empty()) {
        *words.entry(word.to_owned()).or_default() += 1;
    }
    words
}

/// Spelling of a text as a vector: its letter trigrams, each counted in the dimension that its hash
/// selects. Texts with similar words point the same way, whatever their endings.
fn spelling_vector(words: &BTreeMap<String, u32>) -> Result<Vec<u8>, MemoryError> {
    let mut counts = [0_i32; DIMENSIONS];
    for (word, times) in words {
        // Blanks around a word make its beginning and end count as trigrams of their own.
        let padded_word: Vec<char> = [' '].into_iter().chain(word.chars()).chain([' ']).collect();
        let times = i32::try_from(*times).unwrap_or(i32::MAX);
        for trigram in padded_word.windows(3) {
            let hash = blake3::hash(trigram.iter().collect::<String>().as_bytes());
            let (dimension, sign) = (usize::from(hash.as_bytes()[0]), hash.as_bytes()[1] & 1);
            // A random sign lets collisions of two trigrams cancel out on average (feature
            // hashing).
            let count = &mut counts[dimension];
            *count = count.saturating_add(if sign == 0 { times } else { -times });
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "directions need no exact lengths")]
    let counts = counts.map(|count| count as f32);
    Ok(quantise_vector(&counts)?.into_iter().map(i8::cast_unsigned).collect())
}
