//! Who is the primary, and how the role moves: nodes and epochs, the fence, plans and their execution.
//!
//! A plan is data: [`plan`] decides by what was [observed](Observed) which steps lead to the goal, or why none may be
//! taken, and touches nothing. [`Work`] takes the steps. Every step can be taken again: whoever types the command once more
//! after an interruption gets the plan for what is left. What may not enter: how rows are applied.

mod armed;
mod claims;
mod error;
mod guard;
mod hooks;
mod locks;
mod nodes;
mod observe;
pub mod plan;
mod role;
mod salvage;
mod sql;
mod watch;
mod work;

pub use armed::Arming;
pub use claims::{Claims, observe_alone};
pub use error::HandoverError;
pub use guard::{cover, fence_stale};
pub use hooks::{Hooks, run_due_hooks};
pub use nodes::{Cluster, NodeConf, NodeNameError};
pub use observe::{FlowSight, Observed, Seen, Sight, observe, observe_one};
pub use plan::{Plan, Refusal, Step};
#[doc(no_inline)]
pub use relevo_state::{HandoverKind, HandoverRecord, HandoverState, Hook, HookState};
pub use role::{Claim, Stand, stand};
pub use watch::{Word, announce, beat, connect_node, identify, last_handovers, listen, source_of};
pub use work::{Done, Follows, Refused, Work, follow_after_handover, init};
