//! A mutating graph with random survival: vertices in a table are replaced one by one, others are
//! re-linked to the new ones. A replaced vertex loses its own edges, but lives as long as another's edge
//! still leads to it. A shadow outside the heap knows every edge.

use strikeslip::{Array, Field, Gc, Local, Mutator, OutOfMemory, Slot, Words, object};

use super::{Share, Tally};
use crate::index::Mismatches;
use crate::random::{Random, mix};
use crate::workload::RunError;

/// Bytes of a vertex with its words and its place in the table, on average.
const VERTEX_BYTES: u64 = 40 + 44 + 8;
/// Words of a vertex: from this many ..
const FEWEST_WORDS: usize = 2;
/// .. up to less than so many more; with their header they are 24 to 64 bytes.
const MORE_WORDS: usize = 6;
/// How many edges a check follows.
const CHECK_DEPTH: u32 = 4;

/// The generation of the vertices at the end.
const FINAL: u32 = u32::MAX;

object! {
    /// A vertex.
    struct Vertex {
        first: Slot<Vertex>,
        second: Slot<Vertex>,
        words: Slot<Words>,
        id: Field<u64>,
    }
}

/// Names a vertex for ever: place in the table, and how often that place was filled before. Never 0.
const fn id(at: usize, generation: u32) -> u64 {
    ((generation as u64) << 32) | at as u64
}

const fn place(id: u64) -> usize {
    id as u32 as usize
}

/// What the vertex in a place should be: its id, and where its edges lead (0: nowhere).
#[derive(Copy, Clone, Debug, Default)]
struct Shadow {
    id: u64,
    edges: [u64; 2],
}

/// A mutator's graph.
struct Graph<'s> {
    table: Local<'s, Array<Vertex>>,
    shadow: Vec<Shadow>,
}

pub(super) fn run(m: &mut Mutator, share: &Share<'_>) -> Result<Tally, RunError> {
    let vertices = usize::try_from(share.live_bytes / VERTEX_BYTES).unwrap_or(usize::MAX).max(2);
    let mut random = share.random();
    let mut tally = Tally::default();
    m.scope(|m, s| {
        let table = m.alloc_array::<Vertex>(s, vertices)?;
        let mut graph = Graph { table, shadow: vec![Shadow::default(); vertices] };
        for at in 0..vertices {
            let targets = earlier(at, &mut random);
            graph.replace(m, at, 1, targets)?;
        }
        let mut timer = share.timer();
        let mut generation = 1;
        while timer.go_on() {
            // Never reaches FINAL: that would take years.
            generation += 1;
            for _ in 0..16 {
                let at = random.below(vertices);
                let targets = [Some(random.below(vertices)), Some(random.below(vertices))];
                graph.replace(m, at, generation, targets)?;
                graph.relink(m, random.below(vertices), at);
            }
            graph.check(m, random.below(vertices), &mut tally.mismatches);
            tally.operations += 16;
            share.meter.count(16);
        }
        for at in 0..vertices {
            graph.check(m, at, &mut tally.mismatches);
        }
        let mut random = Random::new(share.seed, 1);
        for at in 0..vertices {
            let targets = earlier(at, &mut random);
            graph.replace(m, at, FINAL, targets)?;
        }
        for at in 0..vertices {
            graph.check(m, at, &mut tally.mismatches);
            tally.checksum = mix(tally.checksum ^ graph.table.get(m).get(at).map_or(0, fingerprint));
        }
        Ok(tally)
    })
}

/// Two places before `at`, so that a graph filled in order does not depend on what was there before.
fn earlier(at: usize, random: &mut Random) -> [Option<usize>; 2] {
    let mut draw = || (at > 0).then(|| random.below(at));
    [draw(), draw()]
}

impl Graph<'_> {
    /// Puts a new vertex, with edges to the vertices in the places `targets`, where another was.
    fn replace(
        &mut self,
        m: &mut Mutator,
        at: usize,
        generation: u32,
        targets: [Option<usize>; 2],
    ) -> Result<(), OutOfMemory> {
        let id = id(at, generation);
        if self.shadow[at].id == id {
            return Ok(()); // Drawn twice in one turn: an id must stay unique.
        }
        m.scope(|m, s| {
            let count = word_count(id);
            let words = m.alloc_words(s, count)?;
            (0..count).for_each(|word| words.get(m).set(word, word_value(id, word)));
            let vertex = m.alloc::<Vertex>(s)?;
            let (fresh, table) = (vertex.get(m), self.table.get(m));
            fresh.id.set(id);
            fresh.words.store(m, Some(words.get(m)));
            let target = |target: Option<usize>| target.and_then(|target| table.as_ref().get(target));
            fresh.first.store(m, target(targets[0]));
            fresh.second.store(m, target(targets[1]));
            if let Some(old) = table.get(at) {
                old.first.store(m, None);
                old.second.store(m, None);
            }
            table.set(m, at, Some(fresh));
            Ok(())
        })?;
        let edges = targets.map(|target| target.map_or(0, |target| self.shadow[target].id));
        self.shadow[at] = Shadow { id, edges };
        Ok(())
    }

    /// Leads the second edge of `parent` to `child`.
    fn relink(&mut self, m: &Mutator, parent: usize, child: usize) {
        let table = self.table.get(m);
        if let Some(vertex) = table.get(parent) {
            vertex.second.store(m, table.get(child));
            self.shadow[parent].edges[1] = self.shadow[child].id;
        }
    }

    /// Checks the vertex in a place, and what its edges lead to.
    fn check(&self, m: &mut Mutator, at: usize, mismatches: &mut Mismatches) {
        // Checks are done in long loops that allocate nothing.
        m.safepoint();
        let vertex = self.table.get(m).as_ref().get(at);
        self.check_vertex(vertex, self.shadow[at].id, CHECK_DEPTH, mismatches);
    }

    fn check_vertex(
        &self,
        vertex: Option<Gc<'_, Vertex>>,
        expected: u64,
        depth: u32,
        mismatches: &mut Mismatches,
    ) {
        let found = vertex.map_or(0, |vertex| vertex.id.get());
        mismatches.compare(format_args!("vertex"), &found, &expected);
        let Some(vertex) = vertex.filter(|_| found == expected) else { return };
        mismatches.compare(format_args!("words of vertex {found:#x}"), &words_are_right(vertex), &true);
        if depth == 0 {
            return;
        }
        let shadow = self.shadow[place(found)];
        // A vertex that was replaced is known no more, but has no edges.
        let edges = if shadow.id == found { shadow.edges } else { [0; 2] };
        self.check_vertex(vertex.first.load(), edges[0], depth - 1, mismatches);
        self.check_vertex(vertex.second.load(), edges[1], depth - 1, mismatches);
    }
}

const fn word_count(id: u64) -> usize {
    FEWEST_WORDS + (mix(id) % MORE_WORDS as u64) as usize
}

const fn word_value(id: u64, word: usize) -> u64 {
    mix(id.wrapping_add(word as u64))
}

fn words_are_right(vertex: Gc<'_, Vertex>) -> bool {
    let id = vertex.id.get();
    vertex.words.load().is_some_and(|words| {
        words.len() == word_count(id) && (0..words.len()).all(|word| words.get(word) == word_value(id, word))
    })
}

/// Of the vertex and where its edges lead, as it is in the heap.
fn fingerprint(vertex: Gc<'_, Vertex>) -> u64 {
    let id = |slot: &Slot<Vertex>| slot.load().map_or(0, |vertex| vertex.id.get());
    let edges = mix(id(&vertex.first)) ^ id(&vertex.second);
    let words =
        vertex.words.load().map_or(0, |words| (0..words.len()).fold(0, |sum, word| sum ^ words.get(word)));
    mix(vertex.id.get() ^ mix(edges ^ mix(words)))
}
