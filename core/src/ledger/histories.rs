//! Random histories, cut at every byte: what a reader then believes.

use std::{collections::BTreeMap, fs, path::Path};

use proptest::prelude::*;

use super::{
    Identity, Item, ProcessId, Record,
    record::{Line, marker},
    write::{Opening, Shared},
};

/// Indices are into what was created so far, wrapping around.
#[derive(Debug, Clone)]
enum Op {
    Will(Vec<String>),
    Is(usize, u32),
    Named(usize, String),
    Gone(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let name = "\\PC{0,6}"; // also quotes, and letters of several bytes
    prop_oneof![
        3 => prop::collection::vec(name, 1..4).prop_map(Op::Will),
        2 => (any::<usize>(), any::<u32>()).prop_map(|(at, pid)| Op::Is(at, pid)),
        1 => (any::<usize>(), name).prop_map(|(at, id)| Op::Named(at, id)),
        2 => any::<usize>().prop_map(Op::Gone),
    ]
}

/// What is there after one write, and how long the file is then.
#[derive(Debug, Clone, Default)]
struct Moment {
    length: usize,
    there: BTreeMap<u64, (Item, Option<Identity>)>,
}

fn lines(op: Op, shared: &Shared, created: &mut Vec<u64>) -> Vec<Line> {
    let pick = |created: &[u64], at: usize| created.get(at % created.len().max(1)).copied();
    match op {
        Op::Will(names) => {
            let line = |name| Line::Will { n: shared.next(), item: Item::process(name).with_label("a", "b\n") };
            let lines: Vec<_> = names.into_iter().map(line).collect();
            created.extend(lines.iter().map(Line::number));
            lines
        }
        Op::Is(at, pid) => {
            let identity = Identity::Process(ProcessId { pid, start: u64::from(pid) << 20, boot_id: "b".into() });
            pick(created, at).map(|n| Line::Is { n, identity }).into_iter().collect()
        }
        Op::Named(at, id) => pick(created, at).map(|n| Line::Is { n, identity: Identity::Id(id) }).into_iter().collect(),
        Op::Gone(at) => pick(created, at).map(|n| Line::Gone { n }).into_iter().collect(),
    }
}

fn apply(there: &mut BTreeMap<u64, (Item, Option<Identity>)>, line: &Line) {
    match line {
        Line::Will { n, item } => drop(there.insert(*n, (item.clone(), None))),
        Line::Is { n, identity } => drop(there.get_mut(n).map(|known| known.1 = Some(identity.clone()))),
        Line::Gone { n } => drop(there.remove(n)),
        Line::End { .. } => {}
    }
}

/// Every state that was durable or on its way, first to last; a batch counts line by line, as it may be cut in between.
fn play(ops: Vec<Op>, state: &Path) -> (Vec<u8>, Vec<Moment>, String) {
    let shared = Shared::new(Opening::new("barn", "a::B", Some(state.to_owned())));
    let id = shared.opening.id.clone();
    let path = state.join("ledger").join(format!("{id}.jsonl"));
    let (mut created, mut moments) = (Vec::new(), Vec::new());
    let mut now = Moment::default();
    for op in ops {
        let written = lines(op, &shared, &mut created);
        if written.is_empty() {
            continue;
        }
        shared.write(&written, false).unwrap();
        if moments.is_empty() {
            let header = fs::read(&path).unwrap().iter().position(|byte| *byte == b'\n').unwrap() + 1;
            moments.push(Moment { length: header, ..Moment::default() });
            now.length = header;
        }
        for line in &written {
            apply(&mut now.there, line);
            now.length += serde_json::to_vec(line).unwrap().len() + 1;
            moments.push(now.clone());
        }
    }
    let bytes = if moments.is_empty() { Vec::new() } else { fs::read(&path).unwrap() };
    (bytes, moments, id)
}

fn believed(bytes: &[u8]) -> crate::error::Result<BTreeMap<String, (Item, Option<Identity>)>> {
    let record = Record::parse(Path::new("x"), bytes)?;
    Ok(record.entries.into_iter().map(|entry| (entry.marker, (entry.item, entry.identity))).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_whole_is_believed_and_nothing_else(ops in prop::collection::vec(op(), 0..12)) {
        let state = tempfile::tempdir().unwrap();
        let (bytes, moments, id) = play(ops, state.path());
        let expected = |moment: &Moment| moment.there.iter().map(|(n, known)| (marker(&id, *n), known.clone())).collect::<BTreeMap<_, _>>();
        prop_assert_eq!(moments.last().map_or(0, |last| last.length), bytes.len());
        for cut in 0..=bytes.len() {
            let Some(last) = moments.iter().rev().find(|moment| moment.length <= cut) else {
                prop_assert!(Record::parse(Path::new("x"), &bytes[..cut]).is_err(), "nothing was created, and nothing is claimed");
                continue;
            };
            prop_assert_eq!(believed(&bytes[..cut]).unwrap(), expected(last), "cut at {} of {}", cut, bytes.len());
            // The length came to the disk, the bytes did not.
            let mut holes = bytes[..cut].to_vec();
            holes.resize(bytes.len(), 0);
            prop_assert_eq!(believed(&holes).unwrap(), expected(last), "zeros from {}", cut);
            if let Some(end) = holes.last_mut().filter(|_| cut + 1 < bytes.len()) {
                *end = b'\n';
                prop_assert_eq!(believed(&holes).unwrap(), expected(last), "zeros and a newline from {}", cut);
            }
        }
    }

    #[test]
    fn bytes_of_any_kind_are_an_error_or_a_ledger(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let header = br#"{"remuda_ledger":1,"id":"i","cluster":"c","class":"k","driver":{"pid":1,"start":2,"boot_id":"b","host":"h","pid_namespace":""},"created":3}"#;
        let _ = Record::parse(Path::new("x"), &bytes);
        let _ = Record::parse(Path::new("x"), &[header, &b"\n"[..], &bytes].concat());
    }
}

#[test]
fn a_damaged_line_that_is_not_the_last_is_an_error_and_names_itself() {
    let state = tempfile::tempdir().unwrap();
    let ops = vec![Op::Will(vec!["a".into()]), Op::Will(vec!["b".into()]), Op::Gone(0)];
    let (bytes, moments, _) = play(ops, state.path());
    let mut damaged = bytes.clone();
    damaged[moments[0].length] = b'!';
    let error = Record::parse(Path::new("x"), &damaged).unwrap_err();
    assert_eq!(error.message(), "line 2 of the ledger cannot be understood");
    let later = String::from_utf8(bytes).unwrap().replace("\"remuda_ledger\":1", "\"remuda_ledger\":2");
    let error = Record::parse(Path::new("x"), later.as_bytes()).unwrap_err();
    assert_eq!(error.message(), "the ledger is of format 2, and this Remuda knows 1");
}
