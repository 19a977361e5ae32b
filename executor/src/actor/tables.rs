//! Candidate tables: the models that a call was chosen from, stored once while they stay the same.

use convergio_domain::payload::{PayloadRef, Purpose};
use convergio_domain::run::{Offered, Routing, Table, lineage};
use convergio_eventstore::LogError;
use sha2::{Digest, Sha256};

use super::Actor;
use super::plan::Plan;
use crate::model::verdict::Routed;

/// SHA-256 of a table's JSON, which identifies equal tables.
pub(super) type Print = [u8; 32];

impl Actor {
    /// Records the candidates of a call for its intent.
    pub(super) async fn routing(
        &mut self,
        plan: &mut Plan,
        routed: Routed,
    ) -> Result<Box<Routing<Table>>, LogError> {
        // A single candidate is written into the event itself, without a table.
        if routed.offered.len() > 1 {
            self.know_tables().await?;
        }
        let known = self.tables.as_deref().unwrap_or_default();
        Ok(Box::new(routed.written(|offered| plan.table(known, offered))))
    }

    /// Loads the digests of the tables that this run wrote before it was loaded.
    async fn know_tables(&mut self) -> Result<(), LogError> {
        if self.tables.is_some() {
            return Ok(());
        }
        let mut known = Vec::new();
        for reference in &self.run.state.tables {
            let (stream, place) =
                lineage::locate(&self.run.state.lineage, &self.run.stream, *reference);
            if let Some(bytes) = self.shared.repository.payload(&stream, place).await? {
                known.push((print(&bytes), place));
            }
        }
        self.tables = Some(known);
        Ok(())
    }
}

impl Plan {
    /// Finds an equal table in an earlier commit or in this one, else stores it.
    fn table(&mut self, known: &[(Print, PayloadRef)], offered: &[Offered]) -> Table {
        // Serialising plain values cannot fail.
        let bytes = serde_json::to_vec(offered).unwrap_or_default();
        let print = print(&bytes);
        if let Some((_, reference)) = known.iter().find(|(other, _)| *other == print) {
            return Table::Known(*reference);
        }
        if let Some((_, slot)) = self.tables.iter().find(|(other, _)| *other == print) {
            return Table::New(*slot);
        }
        let slot = self.store(bytes, "application/json", Purpose::Candidates);
        self.tables.push((print, slot));
        Table::New(slot)
    }
}

fn print(bytes: &[u8]) -> Print {
    Sha256::digest(bytes).into()
}
