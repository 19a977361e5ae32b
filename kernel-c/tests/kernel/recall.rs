//! Recall against a slow model, and inside a query of SQLite.

use convergio_kernel_c::{
    KernelError, MemoryIndex, MemoryItem, MemoryQuery, RankWeights, RankedItem, cosine_similarity,
    pack_into_budget, quantise_vector, score_item,
};
use proptest::prelude::*;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Error};

const WEIGHTS: RankWeights =
    RankWeights { text: 400, vector: 300, recency: 200, importance: 100, half_life_ms: 1000 };

#[derive(Debug, Clone)]
struct Item {
    words: Vec<String>,
    vector: Vec<i8>,
    time_ms: i64,
    tokens: u32,
    importance: u32,
}

prop_compose! {
    fn item()(
        words in prop::collection::vec("[a-d]{1,2}", 0..8),
        vector in prop::collection::vec(any::<i8>(), 5),
        time_ms in 0..50i64,
        tokens in 0..60u32,
        importance in prop::sample::select(vec![0, 500, 1000]),
    ) -> Item {
        Item { words, vector, time_ms, tokens, importance }
    }
}

/// BM25 as in the books, with the platform's logarithm.
fn bm25(query: &[String], item: &Item, all: &[&Item]) -> f64 {
    let total: usize = all.iter().map(|item| item.words.len()).sum();
    let mean = total as f64 / all.len() as f64;
    let mut words = query.to_vec();
    words.sort();
    words.dedup();
    let term = |word: &String| {
        let count = |item: &Item| item.words.iter().filter(|other| *other == word).count() as f64;
        let holders = all.iter().filter(|item| count(item) > 0.0).count() as f64;
        let weight = (1.0 + (all.len() as f64 - holders + 0.5) / (holders + 0.5)).ln();
        let (times, length) = (count(item), item.words.len() as f64);
        if times == 0.0 {
            return 0.0;
        }
        weight * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / mean))
    };
    words.iter().map(term).sum()
}

fn angle(a: &[i8], b: &[i8]) -> f64 {
    let dot = |a: &[i8], b: &[i8]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths == 0.0 { 0.0 } else { dot(a, b) / lengths }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn ranks_are_those_of_the_model(
        items in prop::collection::vec(item(), 1..40),
        forgotten in prop::collection::btree_set(0..40u32, 0..10),
        words in prop::collection::vec("[a-e]{1,2}", 0..5),
        vector in prop::option::of(prop::collection::vec(any::<i8>(), 5)),
        limit in 0..50usize,
    ) {
        let mut memory = MemoryIndex::new(5).expect("memory");
        for (number, item) in (0..).zip(&items) {
            let added = memory.add_item(&MemoryItem {
                text: &item.words.join(", "),
                vector: &item.vector,
                time_ms: item.time_ms,
                tokens: item.tokens,
                importance: item.importance,
            });
            prop_assert_eq!(added, Ok(number));
        }
        let is_there = |number: &u32| (*number as usize) < items.len();
        for number in forgotten.iter().copied().filter(is_there) {
            prop_assert_eq!(memory.remove(number), Ok(()));
        }
        let text = words.join(" ").to_uppercase();
        let query =
            MemoryQuery { text: &text, vector: vector.as_deref(), now_ms: 40, weights: WEIGHTS };
        let ranked = memory.rank_items(&query, limit).expect("in range");

        let kept: Vec<(u32, &Item)> =
            (0..).zip(&items).filter(|(number, _)| !forgotten.contains(number)).collect();
        let all: Vec<&Item> = kept.iter().map(|(_, item)| *item).collect();
        prop_assert_eq!(ranked.len(), limit.min(kept.len()));
        prop_assert_eq!(memory.item_count() as usize, kept.len());
        let wanted = |item: &Item| {
            let text = bm25(&words, item, &all);
            let cosine = vector.as_ref().map_or(0.0, |vector| angle(vector, &item.vector));
            let age = (40 - item.time_ms).max(0) as f64;
            (400.0 * text / (1.0 + text) + 300.0 * cosine.max(0.0)
                + 200.0 * 1000.0 / (1000.0 + age) + f64::from(item.importance) / 10.0) / 1000.0
        };
        let key = |r: &RankedItem| {
            let item = &items[r.item as usize];
            (-r.score, -item.time_ms, r.item)
        };
        prop_assert!(ranked.is_sorted_by(|a, b| key(a) < key(b)));
        for found in &ranked {
            prop_assert!((found.score - wanted(&items[found.item as usize])).abs() < 1e-12);
        }
        let worst = ranked.last().map_or(f64::MAX, |found| found.score);
        let is_left_out =
            |(number, _): &&(u32, &Item)| ranked.iter().all(|found| found.item != *number);
        for (_, item) in kept.iter().filter(is_left_out) {
            prop_assert!(limit == 0 || wanted(item) <= worst + 1e-12);
        }
        let packed = pack_into_budget(&ranked, 100);
        prop_assert!(packed.iter().map(|found| found.tokens).sum::<u32>() <= 100);
    }

    /// Bytes are near enough: the cosine of what was quantised is that of the floats.
    #[test]
    fn quantising_keeps_the_angle(
        a in prop::collection::vec(-1.0..1.0f32, 64),
        b in prop::collection::vec(-1.0..1.0f32, 64),
    ) {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
        };
        let exact = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
        let bytes = |vector: &[f32]| quantise_vector(vector).expect("finite");
        let near = cosine_similarity(&bytes(&a), &bytes(&b)).expect("the same dimensions");
        prop_assert!((exact - near).abs() < 0.01, "{exact} {near}");
    }
}

#[test]
fn vectors_of_other_dimensions_are_refused() {
    let mut memory = MemoryIndex::new(2).expect("memory");
    let item = MemoryItem { text: "", vector: &[1], time_ms: 0, tokens: 0, importance: 0 };
    assert_eq!(memory.add_item(&item), Err(KernelError::BadArgument));
    let query = MemoryQuery { text: "", vector: Some(&[1, 2, 3]), now_ms: 0, weights: WEIGHTS };
    assert_eq!(memory.rank_items(&query, 1), Err(KernelError::BadArgument));
    assert_eq!(cosine_similarity(&[1], &[1, 2]), Err(KernelError::BadArgument));
    assert_eq!(quantise_vector(&[f32::NAN]), Err(KernelError::BadArgument));
}

/// `cvg_cosine(a, b)` and `cvg_score(bm25, cosine, age_ms, importance)` in SQL.
fn register(db: &Connection) -> Result<(), Error> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let failed = |error: KernelError| Error::UserFunctionError(error.into());
    let bytes = |blob: Vec<u8>| -> Vec<i8> { blob.into_iter().map(u8::cast_signed).collect() };
    db.create_scalar_function("cvg_cosine", 2, flags, move |call| {
        cosine_similarity(&bytes(call.get(0)?), &bytes(call.get(1)?)).map_err(failed)
    })?;
    db.create_scalar_function("cvg_score", 4, flags, move |call| {
        score_item(&WEIGHTS, call.get(0)?, call.get(1)?, call.get(2)?, call.get(3)?).map_err(failed)
    })
}

#[test]
fn recall_runs_inside_a_query() {
    let db = Connection::open_in_memory().expect("SQLite");
    register(&db).expect("the functions are registered");
    let tables = "CREATE VIRTUAL TABLE words USING fts5(text);
         CREATE TABLE memory (id INTEGER PRIMARY KEY, vector BLOB, time_ms INT, importance INT)";
    db.execute_batch(tables).expect("tables");
    let items: [(&str, [i8; 2], i64, u32); 3] = [
        ("the invoice is due on friday", [100, 0], 0, 900),
        ("the invoice was paid", [90, 10], 900, 500),
        ("lunch with the invoice team", [0, 100], 950, 0),
    ];
    for (text, vector, time_ms, importance) in items {
        let blob: Vec<u8> = vector.map(i8::cast_unsigned).to_vec();
        db.execute("INSERT INTO words (text) VALUES (?)", [text]).expect("text");
        let insert = "INSERT INTO memory (vector, time_ms, importance) VALUES (?, ?, ?)";
        db.execute(insert, (blob, time_ms, importance)).expect("row");
    }
    // FTS5's BM25 is negative: the better, the less.
    let query = "SELECT id FROM words JOIN memory ON id = words.rowid WHERE words MATCH 'invoice'
         ORDER BY cvg_score(-bm25(words), cvg_cosine(vector, x'6400'), 1000 - time_ms, importance)
             DESC, id";
    let mut statement = db.prepare(query).expect("the query is right");
    let found = statement.query_map([], |row| row.get::<_, i64>(0)).expect("rows");
    assert_eq!(found.collect::<Result<Vec<_>, _>>().expect("numbers"), [2, 1, 3]);
    let odd = db.query_row("SELECT cvg_cosine(x'01', x'0102')", [], |row| row.get::<_, f64>(0));
    assert!(odd.expect_err("refused").to_string().contains("outside its range"));
}
