//! The picture of the documentation: workers over time, Dask's policy above ours, as SVG.

use std::{
    fmt::{self, Write as _},
    io::Write,
};

use anyhow::Result;

use crate::{
    sim::Outcome,
    suite::{platform, run},
};

/// What is drawn: (workload, platform, in words).
const SCENES: [(&str, &str, &str); 2] = [
    ("bursty90", "fargate", "15 graphs of 150 tasks of 1 s, some 90 s between them; a worker starts in 35 to 90 s (Fargate)"),
    ("mapreduce", "k8s", "400 tasks, 20, 400, 1, each stage behind the one before; a worker starts in 5 to 15 s (Kubernetes)"),
];
const POLICIES: [(&str, &str, &str); 2] = [("dask", "Dask's Adaptive", "#c8641e"), ("ours", "Remuda", "#1e6ec8")];
const SEED: u64 = 1;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 20.0;
/// A heading, then for each policy a title and a chart.
const HEADING: f64 = 34.0;
const TITLE: f64 = 22.0;
const CHART: f64 = 110.0;
const AXIS: f64 = 26.0;
const SCENE: f64 = HEADING + 2.0 * (TITLE + CHART) + AXIS + 12.0;
const LEGEND: f64 = 24.0;

/// Writes the whole picture.
pub(crate) fn plot(out: &mut dyn Write) -> Result<()> {
    let height = SCENE * SCENES.len() as f64 + LEGEND;
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">"
    )?;
    writeln!(svg, "<desc>Made by cargo run -p remuda-bench-adaptive --release -- plot</desc>")?;
    writeln!(svg, "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>")?;
    for (number, (work, on, words)) in SCENES.into_iter().enumerate() {
        scene(&mut svg, SCENE * number as f64, work, on, words)?;
    }
    legend(&mut svg, SCENE * SCENES.len() as f64)?;
    svg.push_str("</svg>\n");
    Ok(out.write_all(svg.as_bytes())?)
}

fn scene(svg: &mut String, top: f64, work: &str, on: &str, words: &str) -> Result<()> {
    text(svg, LEFT, top + 22.0, "start", "font-weight=\"bold\"", words)?;
    let mut ran = vec![];
    for (policy, name, colour) in POLICIES {
        ran.push((name, colour, run(work, &platform(on)?, policy, SEED, true)?.0));
    }
    let end = ran.iter().map(|(.., outcome)| last(outcome)).fold(0.0, f64::max);
    let most = ran.iter().flat_map(|(.., outcome)| &outcome.trace).map(|(_, live, pending, _)| live + pending).max().unwrap_or(1);
    let scale = Scale { x: (WIDTH - LEFT - RIGHT) / end, y: CHART / f64::from(most.max(1)) };
    let mut at = top + HEADING;
    for (name, colour, outcome) in &ran {
        let title = format!(
            "{name}: {:.0} s from a graph's arrival to its end on average, {} worker-seconds, {} started, {} of them for nothing",
            outcome.latency, outcome.cost, outcome.launches, outcome.useless
        );
        text(svg, LEFT, at + 15.0, "start", "", &title)?;
        at += TITLE;
        chart(svg, at, &outcome.trace, scale, colour)?;
        frame(svg, at, most, scale)?;
        at += CHART;
    }
    axis(svg, at, end, scale)
}

/// When the last worker is gone.
fn last(outcome: &Outcome) -> f64 {
    let there = outcome.trace.iter().rev().find(|(_, live, pending, _)| live + pending > 0);
    there.map_or(outcome.makespan, |point| point.0 + 1.0).max(outcome.makespan)
}

/// Pixels per second and per worker.
#[derive(Debug, Clone, Copy)]
struct Scale {
    x: f64,
    y: f64,
}

/// Workers that are there, and on top of them those asked for.
fn chart(svg: &mut String, top: f64, trace: &[(f64, u32, u32, u32)], scale: Scale, colour: &str) -> fmt::Result {
    let all = steps(trace.iter().map(|(at, live, pending, _)| (*at, live + pending)), top, scale)?;
    let live = steps(trace.iter().map(|(at, live, ..)| (*at, *live)), top, scale)?;
    writeln!(svg, "<path fill=\"{colour}\" fill-opacity=\"0.25\" d=\"{all}\"/>")?;
    writeln!(svg, "<path fill=\"{colour}\" d=\"{live}\"/>")
}

/// A closed path under steps.
fn steps(points: impl Iterator<Item = (f64, u32)>, top: f64, scale: Scale) -> std::result::Result<String, fmt::Error> {
    let bottom = top + CHART;
    let mut path = format!("M{LEFT} {bottom}");
    let (mut height, mut end) = (0, LEFT);
    for (at, workers) in points {
        end = LEFT + at * scale.x;
        if workers != height {
            write!(path, "H{end:.1}V{:.1}", bottom - f64::from(workers) * scale.y)?;
            height = workers;
        }
    }
    write!(path, "H{end:.1}V{bottom}Z")?;
    Ok(path)
}

fn frame(svg: &mut String, top: f64, most: u32, scale: Scale) -> Result<()> {
    let bottom = top + CHART;
    let right = WIDTH - RIGHT;
    writeln!(svg, "<path fill=\"none\" stroke=\"#888\" d=\"M{LEFT} {top}V{bottom}H{right}\"/>")?;
    for workers in ticks(f64::from(most)) {
        let y = bottom - workers * scale.y;
        writeln!(svg, "<path stroke=\"#000\" stroke-opacity=\"0.1\" d=\"M{LEFT} {y:.1}H{right}\"/>")?;
        text(svg, LEFT - 6.0, y + 4.0, "end", "", &format!("{workers}"))?;
    }
    Ok(())
}

fn axis(svg: &mut String, bottom: f64, end: f64, scale: Scale) -> Result<()> {
    for seconds in ticks(end) {
        text(svg, LEFT + seconds * scale.x, bottom + 16.0, "middle", "", &format!("{seconds} s"))?;
    }
    Ok(())
}

/// Round numbers up to `most`, three to six of them.
fn ticks(most: f64) -> impl Iterator<Item = f64> {
    let power = 10f64.powf((most / 3.0).log10().floor());
    let step = [5.0, 2.0, 1.0].into_iter().map(|factor| factor * power).find(|step| most / step >= 3.0).unwrap_or(power);
    (1..).map(move |number| f64::from(number) * step).take_while(move |at| *at <= most)
}

fn legend(svg: &mut String, top: f64) -> Result<()> {
    for (number, (opacity, words)) in [(1.0, "workers that are there"), (0.25, "asked for, starting")].into_iter().enumerate() {
        let x = LEFT + 190.0 * number as f64;
        for (shift, (.., colour)) in [0.0, 12.0].into_iter().zip(POLICIES) {
            writeln!(
                svg,
                "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>",
                x + shift,
                top + 4.0
            )?;
        }
        text(svg, x + 30.0, top + 14.0, "start", "", words)?;
    }
    Ok(())
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, style: &str, words: &str) -> Result<()> {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    Ok(writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{words}</text>")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_up_and_down_and_the_axis_has_round_numbers() {
        let scale = Scale { x: 1.0, y: 10.0 };
        let path = steps([(0.0, 0), (10.0, 3), (11.0, 3), (20.0, 1), (30.0, 0), (40.0, 0)].into_iter(), 0.0, scale).unwrap();
        assert_eq!(path, "M50 110H60.0V80.0H70.0V100.0H80.0V110.0H90.0V110Z");
        assert_eq!(ticks(2159.0).collect::<Vec<_>>(), [500.0, 1000.0, 1500.0, 2000.0]);
        assert_eq!(ticks(35.0).collect::<Vec<_>>(), [10.0, 20.0, 30.0]);
        assert_eq!(ticks(100.0).collect::<Vec<_>>(), [20.0, 40.0, 60.0, 80.0, 100.0]);
    }

    /// The picture in the documentation is this one. It shows both policies, and not more than a page can bear.
    #[test]
    fn the_picture_is_that_of_the_documentation() {
        let mut svg = vec![];
        plot(&mut svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        assert_eq!(svg.matches("<path fill=\"#").count(), 2 * 2 * SCENES.len());
        assert!(svg.len() < 100_000, "{} bytes", svg.len());
        let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/adaptive.svg");
        assert!(std::fs::read_to_string(committed).unwrap() == svg, "make it again: cargo run -p remuda-bench-adaptive --release -- plot");
    }
}
