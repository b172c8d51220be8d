//! Which task needs which: order, cycles, lengths of maps.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::plan::{Expr, Source, TaskPlan, Work, range_len};

/// Before they are in order: indices are those of the file.
pub(super) type Draft = TaskPlan;

impl TaskPlan {
    fn trees(&self) -> Vec<&Expr> {
        let mut trees: Vec<&Expr> = match &self.work {
            Work::Python { args, kwargs, .. } => args.iter().chain(kwargs.iter().map(|(_, t)| t)).collect(),
            Work::Command { argv, env, cwd, stdin, binary: _ } => {
                argv.iter().chain(env.iter().map(|(_, t)| t)).chain(cwd).chain(stdin).collect()
            }
        };
        for (_, source) in &self.map {
            if let Source::Items(items) = source {
                trees.extend(items);
            }
        }
        trees
    }

    /// Indices of the tasks it needs, each once.
    pub(super) fn needs(&self) -> Vec<usize> {
        let mut needs = self.after.clone();
        self.trees().iter().for_each(|tree| tree.tasks(&mut |index| needs.push(index)));
        needs.extend(self.map.iter().filter_map(|(_, source)| if let Source::Task(index) = source { Some(*index) } else { None }));
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    fn renumber(&mut self, to: &[usize]) {
        let trees: Vec<&mut Expr> = match &mut self.work {
            Work::Python { args, kwargs, .. } => args.iter_mut().chain(kwargs.iter_mut().map(|(_, t)| t)).collect(),
            Work::Command { argv, env, cwd, stdin, binary: _ } => {
                argv.iter_mut().chain(env.iter_mut().map(|(_, t)| t)).chain(cwd).chain(stdin).collect()
            }
        };
        trees.into_iter().for_each(|tree| renumber_tree(tree, to));
        for (_, source) in &mut self.map {
            match source {
                Source::Items(items) => items.iter_mut().for_each(|tree| renumber_tree(tree, to)),
                Source::Task(index) => *index = to[*index],
                Source::Range { .. } => {}
            }
        }
        self.after.iter_mut().for_each(|index| *index = to[*index]);
    }
}

fn renumber_tree(tree: &mut Expr, to: &[usize]) {
    match tree {
        Expr::Task(index) => *index = to[*index],
        Expr::List(items) => items.iter_mut().for_each(|item| renumber_tree(item, to)),
        Expr::Map(items) => items.iter_mut().for_each(|(_, item)| renumber_tree(item, to)),
        Expr::Value(_) | Expr::Element(_) | Expr::Each(_) => {}
    }
}

/// Each after those it needs, and otherwise as in the file. `Err`: tasks that need each other, in a ring.
pub(super) fn order(drafts: &[Draft]) -> Result<Vec<usize>, Vec<usize>> {
    let needs: Vec<Vec<usize>> = drafts.iter().map(TaskPlan::needs).collect();
    let mut missing: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut needed_by = vec![Vec::new(); drafts.len()];
    for (task, needs) in needs.iter().enumerate() {
        needs.iter().for_each(|need| needed_by[*need].push(task));
    }
    let mut ready: BinaryHeap<_> = (0..drafts.len()).filter(|task| missing[*task] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(drafts.len());
    while let Some(Reverse(task)) = ready.pop() {
        order.push(task);
        for next in &needed_by[task] {
            missing[*next] -= 1;
            if missing[*next] == 0 {
                ready.push(Reverse(*next));
            }
        }
    }
    match missing.iter().position(|left| *left > 0) {
        None => Ok(order),
        Some(stuck) => Err(ring(stuck, &needs, &missing)),
    }
}

/// Whoever is stuck needs somebody who is stuck; so walking on comes round.
fn ring(from: usize, needs: &[Vec<usize>], missing: &[usize]) -> Vec<usize> {
    let mut way = vec![from];
    loop {
        let last = way[way.len() - 1];
        let Some(next) = needs[last].iter().copied().find(|need| missing[*need] > 0) else { return way };
        if let Some(begin) = way.iter().position(|task| *task == next) {
            way.drain(..begin);
            // Told from the task that stands first in the file.
            let first = way.iter().enumerate().min_by_key(|(_, task)| **task).map_or(0, |(at, _)| at);
            way.rotate_left(first);
            return way;
        }
        way.push(next);
    }
}

/// Puts the tasks in `order`, and their references with them.
pub(super) fn renumber(drafts: &mut Vec<Draft>, result: Option<&mut Expr>, order: &[usize]) {
    let mut to = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        to[*old] = new;
    }
    drafts.iter_mut().for_each(|draft| draft.renumber(&to));
    if let Some(result) = result {
        renumber_tree(result, &to);
    }
    let mut taken: Vec<Option<Draft>> = std::mem::take(drafts).into_iter().map(Some).collect();
    drafts.extend(order.iter().filter_map(|old| taken[*old].take()));
}

/// Fills in how many calls each task has, where that is known. Answers with maps whose sides differ.
pub(super) fn lengths(tasks: &mut [TaskPlan]) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    for at in 0..tasks.len() {
        let (before, rest) = tasks.split_at_mut(at);
        let task = &mut rest[0];
        let known: Vec<(String, usize)> = task.map.iter().filter_map(|(name, source)| Some((name.clone(), len(source, before)?))).collect();
        task.calls = if task.map.is_empty() { Some(1) } else { known.first().map(|(_, len)| *len) };
        if let Err(text) = same_length(&known) {
            wrong.push((task.id.clone(), text));
        }
    }
    wrong
}

fn len(source: &Source, before: &[TaskPlan]) -> Option<usize> {
    match source {
        Source::Items(items) => Some(items.len()),
        Source::Range { start, stop, step } => Some(range_len(*start, *stop, *step)),
        Source::Task(index) => before[*index].is_mapped().then_some(before[*index].calls)?,
    }
}

/// What a map runs over, side by side, must be equally long.
pub(super) fn same_length(sides: &[(String, usize)]) -> Result<(), String> {
    match sides.iter().all(|(_, len)| *len == sides[0].1) {
        true => Ok(()),
        false => {
            let all: Vec<_> = sides.iter().map(|(name, len)| format!("`{name}` has {len}")).collect();
            Err(format!("what it runs over differs in length: {}", all.join(", ")))
        }
    }
}
