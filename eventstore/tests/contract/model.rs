//! Random histories on every provider, compared with the log in memory.

use std::sync::Arc;

use convergio_domain::stream::Seq;
use convergio_eventstore::LogWriter;
use convergio_eventstore::conformance::model::{
    ExpectedHead, LogOperation, STREAMS, assert_logs_agree,
};
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_test_support::nats::{Cluster, KEY, SyncMode, open_log};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop};
use proptest::test_runner::TestRunner;
use proptest::{prop_oneof, proptest};

use crate::support::Log;

fn op() -> impl Strategy<Value = LogOperation> {
    let expected = prop_oneof![
        6 => Just(ExpectedHead::Head),
        1 => Just(ExpectedHead::Nothing),
        1 => (1..4_usize).prop_map(ExpectedHead::Earlier),
        1 => Just(ExpectedHead::Wrong),
    ];
    let append = (0..STREAMS, 1..5_usize, expected);
    prop_oneof![
        8 => append
            .prop_map(|(stream, events, expected)| LogOperation::Append(stream, events, expected)),
        2 => any::<usize>().prop_map(LogOperation::Again),
        1 => any::<usize>().prop_map(LogOperation::Changed),
        1 => (0..STREAMS, 1..9_u64).prop_map(|(stream, seq)| LogOperation::Erase(stream, Seq(seq))),
        1 => Just(LogOperation::Reopen),
    ]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_embedded_log_is_as_the_one_in_memory(ops in prop::collection::vec(op(), 1..40)) {
        runtime().block_on(async {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("payload.key"), KEY).expect("written");
            let config = EmbeddedConfig::new(folder.path());
            let open = || Arc::new(EmbeddedLog::open(&config).expect("opens")) as Log;
            assert_logs_agree(&ops, KEY, open(), async |log| {
                log.close().await.expect("ends");
                open()
            })
            .await;
        });
    }
}

#[test]
fn the_log_in_a_cluster_is_as_the_one_in_memory() {
    let runtime = runtime();
    for servers in [1, 3] {
        let cluster = Cluster::start(servers, SyncMode::Always);
        let config = runtime.block_on(cluster.create("MODEL"));
        let open = async || Arc::new(open_log(&config).await) as Log;
        let mut runner = TestRunner::new(ProptestConfig::with_cases(12));
        let ran = runner.run(&prop::collection::vec(op(), 1..25), |ops| {
            runtime.block_on(async {
                assert_logs_agree(&ops, KEY, open().await, async |log: Arc<dyn LogWriter>| {
                    log.close().await.expect("ends");
                    open().await
                })
                .await;
            });
            Ok(())
        });
        ran.expect("they agree");
    }
}
