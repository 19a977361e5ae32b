//! Health of a process's background loops, for readiness: the loops that fail now, the reason, and
//! since when.
//!
//! A loop that survives an error would otherwise fail in silence for ever.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
struct OngoingFailure {
    reason: String,
    since: Instant,
}

/// Registry of the components of a process that fail now. Cheap to clone: all clones are one
/// registry.
#[derive(Debug, Clone, Default)]
pub struct HealthRegistry(Arc<Mutex<BTreeMap<&'static str, OngoingFailure>>>);

/// A component that fails now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentFailure {
    /// Name of the component, in words for people.
    pub component: &'static str,
    /// Reason of its last failure.
    pub reason: String,
    /// Time since its first failure without a success in between.
    pub duration: Duration,
}

/// Handle by which one component reports. The default handle belongs to a registry of its own,
/// which nobody reads.
#[derive(Debug, Clone)]
pub struct ComponentHealth {
    registry: HealthRegistry,
    component: &'static str,
}

impl HealthRegistry {
    fn failures_by_component(&self) -> MutexGuard<'_, BTreeMap<&'static str, OngoingFailure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the handle of the component with this name.
    pub fn component_health(&self, component: &'static str) -> ComponentHealth {
        ComponentHealth { registry: self.clone(), component }
    }

    /// Lists the components that fail now, ordered by name.
    pub fn current_failures(&self) -> Vec<ComponentFailure> {
        let failures = self.failures_by_component();
        let failure = |(component, failure): (&&'static str, &OngoingFailure)| ComponentFailure {
            component,
            reason: failure.reason.clone(),
            duration: failure.since.elapsed(),
        };
        failures.iter().map(failure).collect()
    }
}

impl ComponentHealth {
    /// Reports that the component failed and will retry.
    pub fn report_failure(&self, reason: &dyn Display) {
        let mut failures = self.registry.failures_by_component();
        // Repeated failures keep the time of the first one.
        let since = failures.get(self.component).map_or_else(Instant::now, |known| known.since);
        failures.insert(self.component, OngoingFailure { reason: reason.to_string(), since });
    }

    /// Reports that the component works.
    pub fn report_success(&self) {
        self.registry.failures_by_component().remove(self.component);
    }
}

impl Default for ComponentHealth {
    fn default() -> Self {
        HealthRegistry::default().component_health("")
    }
}

#[cfg(test)]
mod tests {
    use super::HealthRegistry;

    #[test]
    fn a_component_fails_until_it_reports_success() {
        let registry = HealthRegistry::default();
        let (one, two) = (registry.component_health("one"), registry.component_health("two"));
        one.report_failure(&"no room");
        one.report_failure(&"no room at all");
        two.report_failure(&"gone");
        two.report_success();
        let failures = registry.current_failures();
        assert_eq!(failures.len(), 1);
        assert_eq!((failures[0].component, &*failures[0].reason), ("one", "no room at all"));
        one.report_success();
        assert_eq!(registry.current_failures(), []);
    }
}
