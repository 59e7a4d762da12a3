//! What the table of metrics is made of: one metric for each value of a label.

use std::marker::PhantomData;

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry, core::Collector};

use crate::label::Label;

/// Declares a struct of metrics. A field's doc comment is its help text, its name the metric's; `= buckets` belongs to
/// a histogram.
macro_rules! metrics {
    ($(#[$doc:meta])* pub struct $name:ident {
        $(#[doc = $help:literal] $field:ident: $type:ty $(= $buckets:expr)?,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name { $(#[doc = $help] pub $field: $type,)* }

        impl $name {
            fn register(registry: &prometheus::Registry) -> Self {
                Self {
                    $($field: {
                        let buckets: &[f64] = &[];
                        $(let buckets: &[f64] = { let _ = buckets; $buckets };)?
                        <$type as $crate::metrics::Metric>::register(registry, stringify!($field), $help, &[], buckets)
                    },)*
                }
            }
        }
    };
}
pub(super) use metrics;

/// Something that can be made and registered under a name.
pub trait Metric: Clone {
    /// Registers one series, or one for each value of the family's label.
    fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: &[(&'static str, &'static str)],
        buckets: &[f64],
    ) -> Self;
}

fn opts(name: &str, help: &str, labels: &[(&'static str, &'static str)]) -> Opts {
    labels.iter().fold(Opts::new(name, help.trim()), |opts, (label, value)| opts.const_label(*label, *value))
}

fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> M {
    registry.register(Box::new(metric.clone())).expect("each metric is registered once");
    metric
}

macro_rules! simple_metric {
    ($($type:ty),*) => {$(
        impl Metric for $type {
            fn register(
                registry: &Registry,
                name: &str,
                help: &str,
                labels: &[(&'static str, &'static str)],
                _buckets: &[f64],
            ) -> Self {
                registered(registry, Self::with_opts(opts(name, help, labels)).expect("the name is valid"))
            }
        }
    )*};
}
simple_metric!(IntCounter, IntGauge, Gauge);

impl Metric for Histogram {
    fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: &[(&'static str, &'static str)],
        buckets: &[f64],
    ) -> Self {
        let opts = HistogramOpts::from(opts(name, help, labels)).buckets(buckets.to_vec());
        registered(registry, Self::with_opts(opts).expect("the buckets ascend"))
    }
}

/// One metric for each value of a label. Finding one is an index, not a hash.
#[derive(Clone, Debug)]
pub struct Family<L, M> {
    metrics: Box<[M]>,
    label: PhantomData<L>,
}

impl<L: Label, M> Family<L, M> {
    /// Returns the metric for this value.
    pub fn get(&self, label: L) -> &M {
        &self.metrics[label.index()]
    }
}

impl<L: Label, M: Metric> Metric for Family<L, M> {
    fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        _labels: &[(&'static str, &'static str)],
        buckets: &[f64],
    ) -> Self {
        let metrics = L::all().into_iter().map(|value| M::register(registry, name, help, &value.labels(), buckets));
        Self { metrics: metrics.collect(), label: PhantomData }
    }
}
