//! Every law on the providers that need no server.

macro_rules! memory {
    ($($law:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $law() {
            let (log, _kept) = crate::support::memory();
            convergio_eventstore::conformance::laws::$law(log).await;
        })*
    };
}

macro_rules! embedded {
    ($($law:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $law() {
            let (log, _kept) = crate::support::embedded();
            convergio_eventstore::conformance::laws::$law(log).await;
        })*
    };
}

mod memory {
    convergio_eventstore::for_each_law!(memory);
}

mod embedded {
    convergio_eventstore::for_each_law!(embedded);
}
