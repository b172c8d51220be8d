//! How many workers to have, before bounds.

use super::{
    decision::Reason,
    durations::cautious,
    project::{Arrival, Plan},
    view::View,
};

/// Least gain, in ln(cost * time^weight), for which workers are started.
const HYSTERESIS: f64 = 0.03;
/// Of fleets this near to the best, the fastest is taken.
const TIE: f64 = 0.05;
/// The share of the idle time before a worker is let go that its start is charged with.
const IDLE_SHARE: f64 = 0.5;
/// Candidates: one by one up to here, then in steps of `STEP`.
const SINGLE: u32 = 8;
const STEP: f64 = 1.19;
/// So many times the workers there are, tried beyond the upper bound.
const BEYOND: [f64; 4] = [0.1, 0.3, 1.0, 10.0];
/// Parts into which launches beyond the platform's burst are put.
const PARTS: f64 = 64.0;

/// The fleet that makes `cost * time^weight` smallest, if that is more than there is.
///
/// One stage of work W from nothing on n workers costs `W + n s` (s: billed start-up and idle tail) and takes `L + W/n` (L:
/// start-up), so the product is least at `n = W / sqrt(s L)`: each worker should get sqrt(s L) seconds of work. The projection
/// finds that number for any graph, fleet and weight.
pub(super) fn growth(view: &View<'_>, base: &Plan, room: u32, tokens: Option<(f64, f64)>) -> Option<(u32, Reason)> {
    let width = width(view, base);
    let most = view.workers_for(width).saturating_sub(view.current()).min(room);
    let scored: Vec<Score> = extra(most).filter_map(|extra| score(view, base, extra, tokens)).collect();
    let best = scored.iter().map(|score| score.value).fold(f64::INFINITY, f64::min);
    let still = scored.iter().find(|score| score.extra == 0).map_or(f64::INFINITY, |score| score.value);
    if !best.is_finite() || still - best <= HYSTERESIS {
        return None;
    }
    let pick = scored.iter().filter(|score| score.value <= best + TIE).max_by_key(|score| score.extra)?;
    let reason = Reason::Faster { tasks: view.unfinished(), before: base.finite(), after: pick.finish, beside: view.rate };
    Some((view.current().saturating_add(pick.extra), reason))
}

/// Whether more workers than there are would be started, if there might be more: some of the numbers beyond are tried, so it is cheap.
pub(super) fn pays_beyond(view: &View<'_>, base: &Plan, tokens: Option<(f64, f64)>) -> bool {
    let most = view.workers_for(width(view, base)).saturating_sub(view.current());
    let more = |share: f64| ((f64::from(view.current()) * share).ceil() as u32).clamp(1, most);
    let best = |extra| score(view, base, extra, tokens).map_or(f64::INFINITY, |score| score.value);
    most > 0 && BEYOND.map(|share| best(more(share))).into_iter().fold(f64::INFINITY, f64::min) < best(0) - HYSTERESIS
}

/// A number of workers more, and how good that is.
#[derive(Debug, Clone, Copy)]
struct Score {
    extra: u32,
    value: f64,
    finish: f64,
}

/// 0 to 8 one by one, then in steps of a fifth, `most` always among them.
fn extra(most: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(0u32), move |&k| {
        let next = if k < SINGLE { k + 1 } else { (f64::from(k) * STEP).ceil() as u32 };
        (k < most).then_some(next.min(most))
    })
}

/// Tasks side by side in any stage that runs, or begins, within a start-up from now, and does not end before.
fn width(view: &View<'_>, base: &Plan) -> f64 {
    let alone;
    let ends = if view.rate > 0.0 {
        alone = view.project(&view.arrivals, 0.0).ends;
        &alone
    } else {
        &base.ends
    };
    let (mut width, mut begin) = (view.rate * view.startup, 0.0);
    for (stage, &end) in view.stages.iter().zip(ends).filter(|(stage, _)| stage.count > 0.0 || stage.leaving > 0.0) {
        if end > view.startup && begin <= view.startup + view.adaptive.interval() {
            width = f64::max(width, stage.width);
        }
        begin = end;
        if !end.is_finite() {
            break;
        }
    }
    width
}

fn score(view: &View<'_>, base: &Plan, extra: u32, tokens: Option<(f64, f64)>) -> Option<Score> {
    // A stream has no end at which its fleet is let go, so time counts twice.
    let weight = view.adaptive.config.time_weight * if view.rate > 0.0 { 2.0 } else { 1.0 };
    let started;
    let (plan, mut cost) = if extra == 0 {
        (base, base.cost)
    } else {
        started = view.project(&with_launches(view, extra, tokens), view.rate);
        (&started, started.cost)
    };
    let finish = plan.finish();
    if !finish.is_finite() {
        return None;
    }
    if extra > 0 {
        cost += f64::from(extra) * start_cost(view, finish) * view.slots;
    }
    let target = view.adaptive.config.target_duration.0.as_secs_f64().max(1e-3);
    Some(Score { extra, value: cost.max(1e-6).ln() + weight * finish.max(target).ln(), finish })
}

/// Seconds paid for a start: the billed part, a share of the idle tail, and what is missing to the minimum charge.
fn start_cost(view: &View<'_>, finish: f64) -> f64 {
    let per = view.billed + IDLE_SHARE * (view.keep + view.adaptive.interval());
    let stay = per + (finish - view.startup).max(0.0);
    per + (view.adaptive.backend.minimum_charge.as_secs_f64() - stay).max(0.0)
}

/// The arrivals under way and `extra` more, those beyond the platform's launch limit later.
fn with_launches(view: &View<'_>, extra: u32, tokens: Option<(f64, f64)>) -> Vec<Arrival> {
    let mut arrivals = view.arrivals.clone();
    let mut left = f64::from(extra);
    let (now, rate) = tokens.unwrap_or((f64::INFINITY, 1.0));
    let first = left.min(now.max(1.0).floor());
    arrivals.push(Arrival { after: view.startup, slots: first * view.slots });
    left -= first;
    let part = rate.max(left / PARTS).ceil();
    let mut late = 0.0;
    while left > 0.0 {
        let launched = left.min(part);
        late += launched / rate;
        left -= launched;
        arrivals.push(Arrival { after: view.startup + late, slots: launched * view.slots });
    }
    arrivals.sort_by(|a, b| a.after.total_cmp(&b.after));
    arrivals
}

/// Workers for tasks of kinds of which none has finished, and how many such tasks there are.
pub(super) fn unknown(view: &View<'_>) -> (u32, u64) {
    let mut tasks = 0u64;
    let mut side_by_side = 0.0;
    let mut leaving = view.leaving.clone();
    for group in view.load.groups.iter().filter(|group| super::stages::of(&view.durations, group).unknown) {
        let gone = leaving.get_mut(group.prefix).map_or(0, |left| {
            let gone = group.processing.min(*left);
            *left -= gone;
            gone
        });
        let now = group.ready.saturating_add(group.processing - gone);
        tasks = tasks.saturating_add(now);
        side_by_side += cautious(now as f64);
    }
    (view.workers_for(side_by_side), tasks)
}
