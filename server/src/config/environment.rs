//! The one place where a server reads variables that have no option: providers' keys, the privacy
//! of the whole server, and the collector of traces.

/// Variable with the strictest privacy of all requests: `any` or `local`; `any` when it is absent.
pub(crate) const PRIVACY_VARIABLE: &str = "CONVERGIO_PRIVACY";
/// Variables that name a collector of traces (OpenTelemetry specification, OTLP exporter); without
/// one nothing is traced.
pub(crate) const COLLECTOR_VARIABLES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Reads a variable; one that is not UTF-8 counts as absent.
pub(crate) fn read_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
