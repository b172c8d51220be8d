//! Twelve images from a server that takes 1.27 s for each: 15.2 s one after the other, 1.3 s when all wait at once.
//!
//!     cargo run -p remuda-examples --bin images
//!
//! Downloads wait, they do not compute: `slots = 0` says so, and the number of workers does not limit them.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::time::Instant;

use remuda::{Kwargs, unmapped};
use remuda_examples::{get, image_server, runner};

#[remuda::task(slots = 0, retries = 2)]
async fn download(host: String, number: u8) -> anyhow::Result<Vec<u8>> {
    get(&host, &format!("/image/{number}")).await
}

#[remuda::task]
fn brightness(image: &[u8]) -> u64 {
    image.iter().map(|byte| u64::from(*byte)).sum::<u64>() / image.len() as u64
}

#[remuda::main]
async fn main() -> anyhow::Result<()> {
    let host = image_server()?.to_string();
    let begin = Instant::now();
    let brightness = runner(Kwargs::new())?
        .run(|flow| async move {
            let images = flow.map(download, (unmapped(host), 0..12))?;
            Ok(flow.gather(flow.map(brightness, images)?).await?)
        })
        .await?;
    println!("{brightness:?}");
    eprintln!("{:.1?} instead of 15.2 s", begin.elapsed());
    Ok(())
}
