//! Follows the tenant's token stream, so that tokens which another process issues or revokes take
//! effect here too.

use std::time::Duration;

use convergio_domain::id::TenantId;
use convergio_domain::stream::Seq;
use convergio_domain::token;
use convergio_eventstore::{ComponentHealth, LoadedStream, LogError, Repository};
use futures_util::StreamExt;
use tokio::sync::watch;

use crate::auth::TokenRegistry;
use crate::state::wait_for_stop;

/// Delay before the log is followed again after an error.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Follows a tenant's tokens until `stop` becomes true. While the log cannot be read, the known
/// tokens stay in force, and `health` reports the failure.
pub async fn follow_tokens(
    repository: Repository,
    tenant: TenantId,
    tokens: TokenRegistry,
    health: ComponentHealth,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let follow = follow_once(&repository, &tenant, &tokens, &health);
        tokio::select! {
            () = wait_for_stop(&mut stop) => return,
            followed = follow => if let Err(error) = followed {
                health.report_failure(&error);
            },
        }
        tokio::select! {
            () = wait_for_stop(&mut stop) => return,
            () = tokio::time::sleep(RETRY_DELAY) => {}
        }
    }
}

/// Follows the stream until the log ends or fails.
async fn follow_once(
    repository: &Repository,
    tenant: &TenantId,
    tokens: &TokenRegistry,
    health: &ComponentHealth,
) -> Result<(), LogError> {
    let stream = token::token_stream(tenant);
    let mut loaded: LoadedStream<token::TokenNoun> = repository.load(&stream).await?;
    let mut records = repository.event_log().tail_stream(&stream, loaded_seq(&loaded));
    loop {
        // Also before the first record: it is the history that was just loaded.
        tokens.replace_tenant_tokens(tenant, loaded_seq(&loaded), &loaded.state);
        health.report_success();
        match records.next().await {
            // The record only wakes the loop; the state is folded by the repository.
            Some(record) => drop(record?),
            None => return Ok(()),
        }
        repository.refresh(&mut loaded).await?;
    }
}

fn loaded_seq(loaded: &LoadedStream<token::TokenNoun>) -> Seq {
    loaded.head.map_or(Seq(0), |head| head.seq)
}
