//! The laws on real servers, and what only servers can suffer.

use std::sync::Arc;

use crate::laws;
use crate::nats::{Cluster, Sync};

#[tokio::test(flavor = "multi_thread")]
async fn every_law_holds_on_one_server() {
    let cluster = Cluster::start(1, Sync::Always);
    laws::hold(async |number| Arc::new(cluster.log(&format!("L{number}")).await) as _).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_law_holds_on_three_servers() {
    let cluster = Cluster::start(3, Sync::Always);
    laws::hold(async |number| Arc::new(cluster.log(&format!("L{number}")).await) as _).await;
}
