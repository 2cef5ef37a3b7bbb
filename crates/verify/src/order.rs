//! The order in which tables are written: those that others refer to first.

/// The tables `0..count` such that each comes behind those that it refers to. `references` holds pairs: the table that
/// refers, and the one that it refers to. Within a cycle the order is that of the numbers: nothing checks a reference
/// between two rows of one transaction here, and no order would do.
pub(crate) fn parents_first(count: usize, references: &[(usize, usize)]) -> Vec<usize> {
    let mut order = Vec::with_capacity(count);
    let mut placed = vec![false; count];
    while order.len() < count {
        let waits = |table: usize, placed: &[bool]| {
            references.iter().any(|(child, parent)| *child == table && parent != child && !placed[*parent])
        };
        let left = || (0..count).filter(|table| !placed[*table]);
        let Some(next) = left().find(|table| !waits(*table, &placed)).or_else(|| left().next()) else {
            break;
        };
        placed[next] = true;
        order.push(next);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_cycles_end() {
        assert_eq!(parents_first(3, &[(0, 1), (1, 2)]), [2, 1, 0]);
        assert_eq!(parents_first(2, &[(0, 0), (0, 1)]), [1, 0], "a reference to itself keeps nobody waiting");
        assert_eq!(parents_first(3, &[(0, 1), (1, 0), (2, 0)]), [0, 1, 2]);
        assert_eq!(parents_first(0, &[]), [0; 0]);
    }
}
