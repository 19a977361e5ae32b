//! Privacy of a node, of a run and of a tenant: the strictest holds, and nothing is sent.

use convergio_domain::chat::Privacy;
use convergio_domain::run::event::RunEvent;
use convergio_executor::catalog::PrivacyPolicy;
use convergio_executor::provider::ProviderConfig;
use convergio_kernel_c::ProviderClass;
use serde_json::Value;

use crate::agents::{Behaviour, Model};
use crate::harness::{Ended, Platform, tenant};

const OPEN: &str = r#"
name: ask
nodes:
  - {id: ask, agent: {model: auto, prompt: hi, max_tokens: 20}}
"#;
const HELD: &str = r#"
name: ask
nodes:
  - {id: ask, agent: {model: auto, prompt: hi, max_tokens: 20, privacy: local}}
"#;

/// A cloud that would answer.
async fn cloud() -> (std::sync::Arc<Model>, ProviderConfig) {
    let (model, config) = Model::serve(Behaviour::Answer).await;
    (model, ProviderConfig { name: "far".into(), class: ProviderClass::Cloud, ..config })
}

fn denied(ended: &Ended, model: &Model) {
    assert_eq!((ended.error().code.as_str(), model.calls()), ("privacy.cloud_denied", 0));
    assert_eq!(ended.count("run.model_call.intended.v1"), 0);
}

#[tokio::test]
async fn a_private_node_sends_nothing() {
    let (model, config) = cloud().await;
    denied(&Platform::with_models(vec![config]).execute(HELD, &Value::Null).await, &model);
}

#[tokio::test]
async fn a_private_run_sends_nothing_and_the_log_says_that_it_is_private() {
    let (model, config) = cloud().await;
    let mut platform = Platform::with_models(vec![config]);
    platform.privacy = Privacy::Local;
    let ended = platform.execute(OPEN, &Value::Null).await;
    denied(&ended, &model);
    assert_eq!(ended.state.privacy, Privacy::Local);
    let is_told = |event: &RunEvent| match event {
        RunEvent::RunCreated(run) => run.privacy == Privacy::Local,
        _ => false,
    };
    assert!(ended.events.iter().any(is_told));
}

#[tokio::test]
async fn a_private_tenant_sends_nothing_whatever_its_runs_say() {
    let (model, config) = cloud().await;
    let tenants = [(tenant(), Privacy::Local)].into();
    let mut platform = Platform::new();
    platform.hold(
        vec![config.clone()],
        PrivacyPolicy { tenant_levels: tenants, server_level: Privacy::Any },
    );
    denied(&platform.execute(OPEN, &Value::Null).await, &model);
    let others = [("other".parse().expect("a name"), Privacy::Local)].into();
    platform
        .hold(vec![config], PrivacyPolicy { tenant_levels: others, server_level: Privacy::Any });
    platform.execute(OPEN, &Value::Null).await.completed();
    assert_eq!(model.calls(), 1);
}
