//! Telemetry of the process: log lines on standard error, and OpenTelemetry traces if a collector
//! is named in the environment (`OTEL_EXPORTER_OTLP_ENDPOINT`).

use convergio_process::err_line;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::environment::{COLLECTOR_VARIABLES, read_variable};

/// Running telemetry; flushes pending traces when it is dropped.
pub struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Starts logging at a level, and tracing if a collector is named. Must be called before the
    /// async runtime starts, since the exporter has a thread of its own.
    pub fn start_telemetry(level: &str) -> Self {
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_filter(EnvFilter::new(level));
        let registry = tracing_subscriber::registry().with(lines);
        // Without a collector the layer is not installed at all, which costs nothing per span.
        let is_traced = COLLECTOR_VARIABLES.iter().any(|name| read_variable(name).is_some());
        let provider = is_traced.then(create_tracer_provider).flatten();
        match &provider {
            Some(provider) => {
                let traces = tracing_opentelemetry::layer()
                    .with_tracer(provider.tracer("convergio"))
                    .with_filter(tracing_subscriber::filter::filter_fn(is_own_span))
                    .with_filter(LevelFilter::INFO);
                registry.with(traces).init();
            }
            None => registry.init(),
        }
        Self(provider)
    }
}

/// Selects spans of this project's crates: an exporter that traced its own requests would never
/// end.
fn is_own_span(metadata: &tracing::Metadata<'_>) -> bool {
    metadata.target().starts_with("convergio")
}

fn create_tracer_provider() -> Option<SdkTracerProvider> {
    // The exporter's HTTP client needs a TLS provider before its first connection.
    convergio_executor::provider::install_tls();
    let exporter = match SpanExporter::builder().with_http().build() {
        Ok(exporter) => exporter,
        Err(error) => {
            err_line!("no traces: the exporter cannot be set up: {error}");
            return None;
        }
    };
    let resource = Resource::builder().with_service_name("convergio").build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    Some(builder.with_batch_exporter(exporter).build())
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.0 {
            // A collector that does not answer must not keep the process from ending.
            let _flushed = provider.shutdown();
        }
    }
}
