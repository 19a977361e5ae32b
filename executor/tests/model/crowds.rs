//! Providers that take a few calls at once: all come through, none is sent before its time, and
//! who waits can leave.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use convergio_domain::billing::PriceBook;
use convergio_executor::catalog::ModelCatalog;
use convergio_executor::provider::{
    CallAdmission, ChatAnswer, ModelError, Provider, ProviderCall, ProviderConfig, Secret,
};
use convergio_test_support::crowd::Crowd;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::server::{PATIENCE, ask_service, body_of, call, embed, request, vectors};

fn providers(configs: Vec<ProviderConfig>) -> Vec<Arc<dyn Provider>> {
    let prices = Arc::new(PriceBook::parse_book("[]").expect("an empty book"));
    let catalog = ModelCatalog::new(configs, prices).expect("a valid URL");
    catalog.all_providers().collect()
}

fn provider(config: ProviderConfig) -> Arc<dyn Provider> {
    providers(vec![config]).remove(0)
}

/// A call that waits until it is let in.
const PATIENT: CallAdmission<'static> =
    CallAdmission { run: None, process_permits: None, waits_out_refusals: true, refusal: None };

async fn ask(
    provider: &Arc<dyn Provider>,
    admission: CallAdmission<'_>,
    timeout: Duration,
    cancel: &CancellationToken,
) -> Result<ChatAnswer, ModelError> {
    let body = body_of(&**provider, &request());
    let idempotency_key = Some("the-same-call");
    let call = ProviderCall { admission, idempotency_key, ..call(&body, timeout) };
    provider.complete_chat(call, &|_| {}, cancel).await
}

/// A call of its own.
fn spawn(
    provider: &Arc<dyn Provider>,
    admission: CallAdmission<'static>,
    timeout: Duration,
    cancel: &CancellationToken,
) -> JoinHandle<Result<ChatAnswer, ModelError>> {
    let (provider, cancel) = (Arc::clone(provider), cancel.clone());
    tokio::spawn(async move { ask(&provider, admission, timeout, &cancel).await })
}

fn spawn_patient(provider: &Arc<dyn Provider>) -> JoinHandle<Result<ChatAnswer, ModelError>> {
    spawn(provider, PATIENT, PATIENCE, &CancellationToken::new())
}

async fn answered(call: JoinHandle<Result<ChatAnswer, ModelError>>) {
    call.await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn forty_calls_come_through_at_a_provider_that_takes_three_at_once() {
    for hint in ["", "0", "0.2"] {
        let (crowd, config) = Crowd::serve(3, hint).await;
        let provider = provider(config);
        let calls: Vec<_> = (0..40).map(|_| spawn_patient(&provider)).collect();
        join_all(calls.into_iter().map(answered)).await;
        let refusals = crowd.refusals.load(Ordering::SeqCst);
        assert!(refusals > 0, "`{hint}`: there was a crowd");
        assert_eq!(crowd.arrivals().len(), 40 + refusals, "`{hint}`: each was answered once");
        assert!(crowd.peak.load(Ordering::SeqCst) <= 3);
        assert!(crowd.keys().iter().all(|key| key == "the-same-call"));
    }
}

#[tokio::test]
async fn embeddings_wait_for_their_turn_too() {
    let (crowd, config) = Crowd::serve(1, "").await;
    let provider = provider(config);
    let calls = (0..6).map(|_| ask_service(&*provider, "tiny", embed(&["a text"])));
    for answer in join_all(calls).await {
        assert_eq!(vectors(&answer.expect("a vector")), [[0.5]]);
    }
    assert!(crowd.refusals.load(Ordering::SeqCst) > 0, "there was a crowd");
}

#[tokio::test]
async fn no_more_calls_are_sent_at_once_than_the_configuration_says() {
    let (crowd, config) = Crowd::serve_at_once(40).await;
    let provider = provider(ProviderConfig { max_parallel: 2, ..config });
    let calls: Vec<_> = (0..40).map(|_| spawn_patient(&provider)).collect();
    join_all(calls.into_iter().map(answered)).await;
    assert_eq!(crowd.refusals.load(Ordering::SeqCst), 0);
    assert!(crowd.peak.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_hint_is_kept_to_by_every_call_of_the_key() {
    let (limited, config) = Crowd::serve(0, "1").await;
    let provider = provider(config);
    let never = CancellationToken::new();
    let error =
        ask(&provider, CallAdmission::default(), PATIENCE, &never).await.expect_err("refused");
    assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
    // Two others, neither of which was refused itself.
    for _ in 0..2 {
        let refused = ask(&provider, CallAdmission::default(), PATIENCE, &never).await;
        assert_eq!(refused.expect_err("refused").code, "provider.rate_limited");
    }
    let arrivals = limited.arrivals();
    let gaps: Vec<_> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_secs(1)), "too early: {gaps:?}");
}

#[tokio::test]
async fn two_keys_of_one_provider_know_nothing_of_each_other() {
    let key = |config: ProviderConfig, name: &str| ProviderConfig {
        name: "work".into(),
        key: Some(Secret::new("sk-canary-0123456789")),
        api_key_env: Some(name.into()),
        ..config
    };
    let (closed, first) = Crowd::serve(0, "").await;
    let (open, second) = Crowd::serve_at_once(5).await;
    let providers = providers(vec![key(first, "KEY_1"), key(second, "KEY_2")]);
    let gone = CancellationToken::new();
    let stuck = spawn(&providers[0], PATIENT, PATIENCE, &gone);
    closed.called.notified().await;
    let calls: Vec<_> = (0..5).map(|_| spawn_patient(&providers[1])).collect();
    join_all(calls.into_iter().map(answered)).await;
    assert_eq!((open.arrivals().len(), open.refusals.load(Ordering::SeqCst)), (5, 0));
    gone.cancel();
    assert!(stuck.await.expect("no panic").is_err());
}

#[tokio::test]
async fn a_call_that_is_cancelled_while_it_waits_is_not_sent_and_gives_its_place_on() {
    let (crowd, config) = Crowd::serve_at_once(5).await;
    crowd.hold();
    let provider = provider(ProviderConfig { max_parallel: 1, ..config });
    let first = spawn_patient(&provider);
    crowd.called.notified().await;
    let gone = CancellationToken::new();
    let mut second = Box::pin(ask(&provider, PATIENT, PATIENCE, &gone));
    assert!(second.as_mut().now_or_never().is_none(), "it waits");
    let third = spawn_patient(&provider);
    gone.cancel();
    assert_eq!(second.await.expect_err("cancelled").code, "provider.unavailable");
    crowd.release();
    answered(first).await;
    answered(third).await;
    assert_eq!(crowd.arrivals().len(), 2);
}

#[tokio::test]
async fn waiting_for_a_place_is_no_part_of_the_calls_own_time() {
    let (crowd, config) = Crowd::serve_at_once(5).await;
    crowd.hold();
    let provider = provider(ProviderConfig { max_parallel: 1, ..config });
    let first = spawn_patient(&provider);
    crowd.called.notified().await;
    let timeout = Duration::from_secs(1);
    let second = spawn(&provider, PATIENT, timeout, &CancellationToken::new());
    tokio::time::sleep(timeout + timeout / 4).await;
    crowd.release();
    answered(first).await;
    answered(second).await;
}

#[tokio::test]
async fn who_refuses_every_call_is_given_up_and_the_message_says_so() {
    let (crowd, config) = Crowd::serve(0, "").await;
    let provider = provider(config);
    let never = CancellationToken::new();
    let error = ask(&provider, PATIENT, Duration::from_millis(700), &never).await;
    let error = error.expect_err("refused for ever");
    assert_eq!((error.code, error.retryable), ("provider.rate_limited", true));
    assert!(error.message.contains("429") && error.message.contains("waited 700ms"), "{error}");
    assert_eq!(error.partial_usage, None);
    assert!(crowd.arrivals().len() < 5, "it is asked more and more seldom");
}

#[tokio::test]
async fn who_waits_for_one_provider_takes_no_place_of_another() {
    let (closed, first) = Crowd::serve(0, "").await;
    let (_, second) = Crowd::serve_at_once(5).await;
    let providers = providers(vec![first, ProviderConfig { name: "other".into(), ..second }]);
    // One place for the whole process, and a call that waits for its own provider.
    let places = Semaphore::new(1);
    let admission = CallAdmission { process_permits: Some(&places), ..PATIENT };
    let gone = CancellationToken::new();
    let stuck = ask(&providers[0], admission, PATIENCE, &gone);
    let others = async {
        closed.called.notified().await;
        for _ in 0..3 {
            let answer = ask(&providers[1], admission, PATIENCE, &CancellationToken::new()).await;
            answer.expect("an answer");
        }
        gone.cancel();
    };
    let (stuck, ()) = tokio::join!(stuck, others);
    assert!(stuck.is_err());
}
