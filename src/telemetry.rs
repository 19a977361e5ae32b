//! What the process says of itself: log lines on standard error, and traces by OpenTelemetry where
//! a collector is named in the environment (`OTEL_EXPORTER_OTLP_ENDPOINT`).

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Variables that name a collector (OpenTelemetry's specification of exporters).
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Sends what is left when the process ends.
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Begins to log at a level, and to trace if a collector is named. To be called before the
    /// runtime starts: the exporter has a thread of its own.
    pub(crate) fn start(level: &str) -> Self {
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_filter(EnvFilter::new(level));
        let registry = tracing_subscriber::registry().with(lines);
        let is_wanted = ENDPOINTS.iter().any(|name| std::env::var_os(name).is_some());
        let provider = is_wanted.then(provider).flatten();
        match &provider {
            Some(provider) => {
                let traces = tracing_opentelemetry::layer()
                    .with_tracer(provider.tracer("convergio"))
                    .with_filter(tracing_subscriber::filter::filter_fn(is_ours))
                    .with_filter(LevelFilter::INFO);
                registry.with(traces).init();
            }
            None => registry.init(),
        }
        Self(provider)
    }
}

/// Spans of our own crates: an exporter that traced its own requests would never end.
fn is_ours(metadata: &tracing::Metadata<'_>) -> bool {
    metadata.target().starts_with("convergio")
}

fn provider() -> Option<SdkTracerProvider> {
    convergio_executor::model::install_tls();
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
            // A collector that does not answer must not keep the process.
            let _flushed = provider.shutdown();
        }
    }
}
