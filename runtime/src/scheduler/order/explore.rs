//! Free paths: what could be computed from here on without loading more data.
//!
//! To run everything that is free at once would hold many results that nothing can use yet; to run it only when the
//! critical path asks for it would hold their inputs for long. So: follow each free task along its only users. Where
//! that leads to a result, take the path. Where it leads to a task that needs more, remember the path there, and take
//! all of them once there are enough to compute that task.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;

use super::frontier::{Frontier, Path, START};

/// A path being followed, and how often it has branched.
struct Branch {
    n_splits: u32,
    path: Path,
}

impl Frontier<'_> {
    /// Follows every free task as far as it leads.
    pub fn explore_runnable(&mut self) {
        while !self.runnable.is_empty() {
            let mut found = std::mem::take(&mut self.runnable);
            while let Some(task) = found.pop() {
                if self.on_path[task as usize] || self.placed[task as usize] {
                    continue;
                }
                if self.graph.dependents(task).is_empty() {
                    self.place(task);
                } else {
                    self.explore(task);
                }
            }
        }
    }

    fn explore(&mut self, start: u32) {
        let first = self.step(start, START);
        let mut branches = VecDeque::from([Branch {
            n_splits: 0,
            path: Path::Chain(first),
        }]);
        while let Some(branch) = branches.pop_front() {
            self.follow(branch, &mut branches);
        }
    }

    /// Follows one path until it splits or ends.
    fn follow(&mut self, branch: Branch, branches: &mut VecDeque<Branch>) {
        let mut end = match branch.path {
            Path::Chain(end) => end,
            Path::Joined(joined) => return self.remember_joined(joined),
        };
        let mut n_splits = branch.n_splits;
        loop {
            let step = self.steps[end as usize];
            let (task, at) = (step.task, step.task as usize);
            self.on_path[at] = true;
            let users = self.graph.dependents(task);
            let n_dependencies = self.graph.dependencies(task).len();
            let goes_on = step.before == START || n_dependencies == 1;
            match users {
                [] if self.needed[at] <= 1 => return self.take(&Path::Chain(end)),
                [] => {
                    self.on_path[at] = false;
                    return;
                }
                [user] if goes_on => end = self.step(*user, end),
                _ if goes_on => {
                    n_splits += 1;
                    let mut split = users.to_vec();
                    self.sort_by_rank(&mut split);
                    for user in split {
                        // Only tasks that need nothing else: others interleave with what comes from elsewhere.
                        if self.graph.dependencies(user).len() == 1 {
                            let path = Path::Chain(self.step(user, end));
                            branches.push_back(Branch { n_splits, path });
                        }
                    }
                    return;
                }
                _ => return self.arrive(task, end, n_splits, branches),
            }
        }
    }

    /// A path has come to a task that needs more than it.
    fn arrive(&mut self, task: u32, end: u32, n_splits: u32, branches: &mut VecDeque<Branch>) {
        let at = task as usize;
        self.on_path[at] = true;
        let Some(mut paths) = self.paths.remove(&task) else {
            if self.needed[at] <= 1 {
                return self.take(&Path::Chain(end));
            }
            self.on_path[at] = false;
            self.paths.insert(task, vec![Path::Chain(end)]);
            return;
        };
        self.on_path[at] = false;
        paths.push(Path::Chain(end));
        if paths.len() < self.needed[at] as usize {
            self.paths.insert(task, paths);
            return;
        }
        paths.retain(|path| !self.leads_from_placed(path));
        if paths.len() < self.needed[at] as usize {
            self.paths.insert(task, paths);
        } else if n_splits > 1 {
            let joined = self.join(paths.iter());
            branches.push_back(Branch {
                n_splits: n_splits - 1,
                path: Path::Joined(joined),
            });
        } else {
            self.take_all(paths);
        }
    }

    /// Whether the last task before the path's end is placed, so that the path has nothing left to give.
    fn leads_from_placed(&self, path: &Path) -> bool {
        let last = match path {
            Path::Chain(end) => self
                .steps
                .get(*end as usize)
                .and_then(|step| self.steps.get(step.before as usize))
                .map(|step| step.task),
            Path::Joined(joined) => joined.iter().rev().nth(1).copied(),
        };
        last.is_some_and(|task| self.placed[task as usize])
    }

    /// One path of several with a common end: each task once, and the end after all others.
    pub fn join<'p>(&self, paths: impl Iterator<Item = &'p Path>) -> Vec<u32> {
        let mut joined = Vec::new();
        let mut seen = FxHashSet::default();
        let mut tasks = Vec::new();
        let mut end = None;
        for path in paths {
            tasks.clear();
            let mut own = self.tasks_backwards(path);
            end = own.next().or(end);
            match path {
                // Chains share their beginnings: what comes before a seen task has been seen, too.
                Path::Chain(_) => tasks.extend(own.take_while(|&task| seen.insert(task))),
                Path::Joined(_) => tasks.extend(own.filter(|&task| seen.insert(task))),
            }
            joined.extend(tasks.iter().rev());
        }
        joined.extend(end);
        joined
    }

    /// Paths that come from several splits are left to the critical path, which knows when it needs them.
    fn remember_joined(&mut self, joined: Vec<u32>) {
        let Some(&task) = joined.last() else { return };
        self.on_path[task as usize] = false;
        if self.needed[task as usize] <= 1 {
            self.take(&Path::Joined(joined));
        } else {
            self.paths
                .entry(task)
                .or_default()
                .push(Path::Joined(joined));
        }
    }

    /// Places the tasks of a path.
    fn take(&mut self, path: &Path) {
        let tasks: Vec<u32> = self.tasks_backwards(path).collect();
        for &task in tasks.iter().rev() {
            self.place(task);
        }
    }

    /// Places the tasks of paths with a common end: the end comes with the last of them.
    fn take_all(&mut self, paths: Vec<Path>) {
        for path in &paths {
            self.take(path);
        }
    }
}
