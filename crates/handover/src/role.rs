//! What a node is, decided from what the databases say. Pure.

/// What one database says of the role of the primary.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The epoch.
    pub epoch: u64,
    /// Who has the role in it.
    pub primary: String,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// It has the role, and nobody says otherwise.
    Primary {
        /// Since this epoch.
        epoch: u64,
    },
    /// Another node has the role.
    Standby {
        /// Since this epoch.
        epoch: u64,
        /// Who.
        primary: String,
    },
    /// It believes to have the role, and another node has it since a later epoch: it must be fenced at once.
    Stale {
        /// The later epoch.
        epoch: u64,
        /// Who has the role.
        primary: String,
    },
    /// Two nodes claim the role in the same epoch, which takes commands whose files name different nodes: both must be fenced,
    /// and a person decides.
    Contested {
        /// The epoch.
        epoch: u64,
        /// Who claims it, by name.
        claimants: Vec<String>,
    },
    /// Nobody says anything: `relevo init` has not been here.
    Unknown,
}

/// What node `me` is, by what its own database says and what those of the others say that can be reached. The highest
/// epoch counts.
#[must_use]
pub fn stand(me: &str, own: Option<&Claim>, others: &[Claim]) -> Stand {
    let Some(epoch) = own.iter().copied().chain(others).map(|claim| claim.epoch).max() else {
        return Stand::Unknown;
    };
    let mut claimants: Vec<String> = own
        .iter()
        .copied()
        .chain(others)
        .filter(|claim| claim.epoch == epoch)
        .map(|claim| claim.primary.clone())
        .collect();
    claimants.sort();
    claimants.dedup();
    let believes = own.is_some_and(|claim| claim.primary == me);
    match claimants.as_slice() {
        [primary] if primary == me => Stand::Primary { epoch },
        [primary] if believes => Stand::Stale { epoch, primary: primary.clone() },
        [primary] => Stand::Standby { epoch, primary: primary.clone() },
        _ => Stand::Contested { epoch, claimants },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(epoch: u64, primary: &str) -> Claim {
        Claim { epoch, primary: primary.to_owned() }
    }

    #[test]
    fn the_highest_epoch_counts() {
        let standby = |epoch, primary: &str| Stand::Standby { epoch, primary: primary.to_owned() };
        assert_eq!(stand("a", None, &[]), Stand::Unknown);
        assert_eq!(stand("a", Some(&claim(1, "a")), &[]), Stand::Primary { epoch: 1 });
        assert_eq!(stand("b", Some(&claim(1, "a")), &[claim(2, "c")]), standby(2, "c"));
        assert_eq!(stand("b", None, &[claim(1, "a")]), standby(1, "a"));
        let stale = Stand::Stale { epoch: 2, primary: "b".to_owned() };
        assert_eq!(stand("a", Some(&claim(1, "a")), &[claim(2, "b")]), stale);
        assert_eq!(stand("b", Some(&claim(1, "a")), &[claim(2, "b")]), Stand::Primary { epoch: 2 });
        let contested = Stand::Contested { epoch: 2, claimants: vec!["b".to_owned(), "c".to_owned()] };
        assert_eq!(stand("a", Some(&claim(1, "a")), &[claim(2, "b"), claim(2, "c")]), contested);
    }

    proptest! {
        /// Whatever the databases say: of all nodes that see the same, at most one holds itself for the primary.
        #[test]
        fn at_most_one_node_is_the_primary(
            claims in prop::collection::vec((1u64..4, 0usize..3), 3)
        ) {
            let names = ["a", "b", "c"];
            let claims: Vec<Claim> = claims.iter().map(|(epoch, who)| claim(*epoch, names[*who])).collect();
            let primaries = (0..3).filter(|me| {
                let others: Vec<Claim> =
                    claims.iter().enumerate().filter(|(at, _)| at != me).map(|(_, claim)| claim.clone()).collect();
                matches!(stand(names[*me], Some(&claims[*me]), &others), Stand::Primary { .. })
            });
            prop_assert!(primaries.count() <= 1);
        }
    }
}
