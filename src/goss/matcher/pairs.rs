//! Which matcher takes which element, so that as many as can be are taken.

/// For each of `fits` (rows: matchers; columns: elements) the element it takes, if any: a matching of greatest size.
pub(super) fn pair(fits: &[Vec<bool>], elements: usize) -> Vec<Option<usize>> {
    let mut taken_by: Vec<Option<usize>> = vec![None; elements];
    for row in 0..fits.len() {
        // An augmenting path by breadth: no recursion over what a guest says.
        let mut from: Vec<Option<usize>> = vec![None; elements];
        let mut seen = vec![false; elements];
        let mut queue = std::collections::VecDeque::from([row]);
        let mut end = None;
        'search: while let Some(current) = queue.pop_front() {
            for (element, fits) in fits[current].iter().enumerate() {
                if !fits || seen[element] {
                    continue;
                }
                seen[element] = true;
                from[element] = Some(current);
                match taken_by[element] {
                    Some(other) => queue.push_back(other),
                    None => {
                        end = Some(element);
                        break 'search;
                    }
                }
            }
        }
        while let Some(element) = end {
            let Some(matcher) = from[element] else { break };
            let before = taken_by.iter().position(|taken| *taken == Some(matcher));
            taken_by[element] = Some(matcher);
            end = if matcher == row { None } else { before };
        }
    }
    let mut takes = vec![None; fits.len()];
    for (element, matcher) in taken_by.iter().enumerate() {
        if let Some(matcher) = matcher {
            takes[*matcher] = Some(element);
        }
    }
    takes
}

#[cfg(test)]
mod tests {
    use super::pair;

    #[test]
    fn a_greedy_choice_is_taken_back() {
        let fits = [vec![true, true], vec![true, false]];
        assert_eq!(pair(&fits, 2), [Some(1), Some(0)]);
        let fits = [vec![true], vec![true]];
        assert_eq!(pair(&fits, 1).iter().flatten().count(), 1);
        let fits = [
            vec![true, true, false],
            vec![true, false, false],
            vec![false, true, true],
        ];
        assert_eq!(pair(&fits, 3), [Some(1), Some(0), Some(2)]);
    }
}
