//! The writer's part in giving free space back; `upkeep/compact.rs` has the whole.

use super::Writer;
use crate::store::index::Fault;
use crate::store::open::queue::Tightened;

impl Writer {
    /// Frees what waits, takes extents without texts out of the blob space, moves a few index extents into earlier
    /// ones, and cuts the file off after the last extent in use. Everybody waits meanwhile, so the whole index is moved
    /// in many such steps. Copies in progress are not good after this.
    ///
    /// Every step leaves a sound file: extents are given up by a checkpoint before anything else may use them,
    /// index extents are durable in their new place before a superblock says so, and nobody needs what is cut
    /// off.
    pub(super) fn tighten(&mut self) -> Result<Tightened, Fault> {
        // What is retired up to this checkpoint becomes free at the next.
        self.window.give_way();
        self.checkpoint_in_any_case()?;
        self.window.give_way();
        self.is_giving_up = true;
        let given_up = self.checkpoint_in_any_case();
        self.is_giving_up = false;
        given_up?;
        let open = self.sound_index()?;
        open.container.add_free_extents(self.space.take_given_up());
        open.container.give_up_reserve();
        let moved_octets = open.container.move_index_forward()?;
        // Without room for it mail is refused, as always.
        let _ = open.container.fill_reserve(0);
        open.container.cut_end();
        self.window.give_way();
        self.hold_for_copies(&open, self.shared.pins.now());
        self.release(&open);
        let end_of_texts = self.space.end_of_texts_together(&open.container.free_extents());
        Ok(Tightened { moved_octets, end_of_texts })
    }
}
