//! Follows the tenant's token stream, so that tokens which another process issues or revokes take
//! effect here too.

use std::time::Duration;

use convergio_domain::id::TenantId;
use convergio_domain::stream::Seq;
use convergio_domain::token;
use convergio_eventstore::{ComponentHealth, Loaded, LogError, Repository};
use futures_util::StreamExt;
use tokio::sync::watch;

use crate::app::stopped;
use crate::auth::Tokens;

/// Delay before the log is followed again after an error.
const AGAIN: Duration = Duration::from_millis(500);

/// Follows a tenant's tokens until `stop` becomes true. While the log cannot be read, the known
/// tokens stay in force, and `health` reports the failure.
pub async fn follow_tokens(
    repository: Repository,
    tenant: TenantId,
    tokens: Tokens,
    health: ComponentHealth,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let follow = follow_once(&repository, &tenant, &tokens, &health);
        tokio::select! {
            () = stopped(&mut stop) => return,
            followed = follow => if let Err(error) = followed {
                health.report_failure(&error);
            },
        }
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Follows the stream until the log ends or fails.
async fn follow_once(
    repository: &Repository,
    tenant: &TenantId,
    tokens: &Tokens,
    health: &ComponentHealth,
) -> Result<(), LogError> {
    let stream = token::stream(tenant);
    let mut loaded: Loaded<token::Tokens> = repository.load(&stream).await?;
    let mut records = repository.log().tail_stream(&stream, seq(&loaded));
    loop {
        // Also before the first record: it is the history that was just loaded.
        tokens.replace(tenant, seq(&loaded), &loaded.state);
        health.report_success();
        match records.next().await {
            // The record only wakes the loop; the state is folded by the repository.
            Some(record) => drop(record?),
            None => return Ok(()),
        }
        repository.refresh(&mut loaded).await?;
    }
}

fn seq(loaded: &Loaded<token::Tokens>) -> Seq {
    loaded.head.map_or(Seq(0), |head| head.seq)
}
