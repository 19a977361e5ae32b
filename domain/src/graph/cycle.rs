//! Finds cycles: nodes that wait for each other.

use std::collections::{BTreeMap, VecDeque};

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;

/// Returns a shortest cycle of each strongly connected group, beginning and ending with its
/// smallest node, so that the message is short and the same every time.
pub(super) fn find_cycles(map: &DiGraphMap<usize, ()>) -> Vec<Vec<usize>> {
    let groups = tarjan_scc(map).into_iter();
    let mut circles: Vec<_> = groups.filter_map(|group| shortest_cycle_in(map, &group)).collect();
    circles.sort();
    circles
}

/// Searches breadth-first, within a group, from its smallest node back to that node.
fn shortest_cycle_in(map: &DiGraphMap<usize, ()>, group: &[usize]) -> Option<Vec<usize>> {
    let start = *group.iter().min()?;
    let group: std::collections::BTreeSet<_> = group.iter().copied().collect();
    let mut predecessors: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for next in map.neighbors(node).filter(|next| group.contains(next)) {
            if predecessors.contains_key(&next) {
                continue;
            }
            // The start gets its predecessor last, which closes the cycle.
            predecessors.insert(next, node);
            if next == start {
                return Some(path_to_start(&predecessors, start));
            }
            queue.push_back(next);
        }
    }
    None
}

/// Follows the predecessors from `start` back to itself; the path in the order of the edges.
fn path_to_start(came_from: &BTreeMap<usize, usize>, start: usize) -> Vec<usize> {
    let mut way = vec![start];
    let mut node = came_from[&start];
    while node != start {
        way.push(node);
        node = came_from[&node];
    }
    way.push(start);
    way.reverse();
    way
}
