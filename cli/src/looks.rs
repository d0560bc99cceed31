//! Which torrents are asked for their figures, and when: all of them every time where they are few.

use crate::view::View;

/// The looks at very many torrents.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// Where the next look goes on.
    next: usize,
}

impl Looks {
    /// Whose figures are wanted at this look: of the first that do something, and of some of the others in turn.
    pub(crate) fn next(&mut self, views: &[View]) -> Vec<usize> {
        let is_there = |index: &usize| !views[*index].has_failed;
        if views.len() <= ALL_MAX {
            return (0..views.len()).filter(is_there).collect();
        }
        let in_turn = (views.len() / ROUND_LOOKS_MAX).max(IN_TURN_MIN);
        let busy: Vec<usize> =
            (0..views.len()).filter(|index| views[*index].is_busy()).take(BUSY_MAX).collect();
        let others = (self.next..self.next + in_turn).map(|index| index % views.len());
        let others: Vec<usize> =
            others.filter(|index| is_there(index) && busy.binary_search(index).is_err()).collect();
        self.next = (self.next + in_turn) % views.len();
        [busy, others].concat()
    }
}

/// So many are asked all together.
const ALL_MAX: usize = 200;
/// Of more than that: so many of those that do something, at each look.
const BUSY_MAX: usize = 300;
/// And so many of the others; everybody had their turn after so many looks.
const IN_TURN_MIN: usize = 100;
const ROUND_LOOKS_MAX: usize = 30;

#[cfg(test)]
mod tests {
    use taipei_engine::TorrentState;

    use super::*;

    #[test]
    fn few_are_asked_each_time_and_of_many_the_busy_ones_and_the_others_in_turn() {
        let mut views: Vec<View> = (0..250).map(|_| View::new("t", 0)).collect();
        assert_eq!(Looks::default().next(&views[..200]).len(), 200);
        views.iter_mut().for_each(|view| view.state = TorrentState::Seeding);
        views[249].state = TorrentState::Downloading;
        views[7].has_failed = true;
        let mut looks = Looks::default();
        let first: Vec<usize> = looks.next(&views);
        assert_eq!((first[0], first.len()), (249, 1 + 99));
        let second = looks.next(&views);
        assert_eq!(second[..3], [249, 100, 101]);
        let third = looks.next(&views);
        assert_eq!((third[1], third.last()), (200, Some(&49)));
    }

    #[test]
    fn nobody_is_passed_over_however_many_are_busy() {
        let views: Vec<View> = (0..9000).map(|_| View::new("t", 0)).collect();
        let mut looks = Looks::default();
        let mut asked: Vec<usize> = (0..ROUND_LOOKS_MAX).flat_map(|_| looks.next(&views)).collect();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked, (0..9000).collect::<Vec<_>>());
    }
}
