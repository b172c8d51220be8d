//! Who runs first, and who must not run beside whom.
//!
//!     cargo run -p remuda-examples --bin annotations
//!
//! Resources are names that the workers offer and tasks take while they run. Nothing knows what they mean: `GPU` may be a card, `process` a
//! licence of which there is one.
#![allow(clippy::print_stdout)]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use remuda::{Annotate, TaskRunner, local::LocalConfig};

#[remuda::main]
async fn main() -> anyhow::Result<()> {
    // One worker with four slots, one GPU and one `process`; threads, so that closures can look at what happens.
    let runner = TaskRunner::builder()
        .cluster(LocalConfig {
            n_workers: Some(1),
            threads_per_worker: Some(4),
            processes: false,
            resources: [("GPU".to_owned(), 1.0), ("process".to_owned(), 1.0)].into(),
            ..LocalConfig::default()
        })
        .build()?;
    runner
        .run(|flow| async move {
            // One at a time, whatever the number of slots.
            let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let alone = flow.annotate(Annotate::new().resource("process", 1.0));
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    let (running, most) = (running.clone(), most.clone());
                    alone.spawn(move || {
                        most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                        std::thread::yield_now();
                        running.fetch_sub(1, SeqCst);
                    })
                })
                .collect();
            flow.gather(tasks).await?;
            println!("with one `process`: at most {} at once", most.load(SeqCst));

            // The urgent first, among those that wait for the same GPU. The first holds it until all others are there.
            let order = Arc::new(Mutex::new(Vec::new()));
            let gpu = flow.annotate(Annotate::new().resource("GPU", 1.0));
            let (open, wait) = std::sync::mpsc::channel::<()>();
            let first = gpu.spawn(move || wait.recv().is_err());
            let tasks: Vec<_> = [("low", -1), ("usual", 0), ("high", 10)]
                .map(|(name, priority)| {
                    let order = order.clone();
                    let urgent = gpu.annotate(Annotate::new().priority(priority));
                    urgent.spawn(move || order.lock().map(|mut order| order.push(name)).is_ok())
                })
                .into();
            drop(open);
            first.await?;
            flow.gather(tasks).await?;
            println!("on one GPU: {}", order.lock().map(|order| order.join(", ")).unwrap_or_default());
            Ok(())
        })
        .await?;
    Ok(())
}
