//! Giving free space back: the writer's part of it. `upkeep/compact.rs` says what it is a part of.

use super::Writer;
use crate::store::file::format::Extent;
use crate::store::index::Fault;

impl Writer {
    /// Makes free what waits, takes extents without texts out of the blob space, moves the index into those that lie
    /// before it, and cuts the file behind the last that is in use. Copies of the file under way are not good after
    /// this.
    ///
    /// Each step leaves a sound file: extents are given up by a checkpoint, before anything else may use them; those of
    /// the index are durable in their new place before a superblock says so; the end of the file is needed by nobody.
    pub(super) fn tighten(&mut self) -> Result<Option<Extent>, Fault> {
        // What is retired up to this checkpoint is free at the next.
        self.window.clear();
        self.checkpoint_in_any_case()?;
        self.window.clear();
        self.is_giving_up = true;
        let given_up = self.checkpoint_in_any_case();
        self.is_giving_up = false;
        given_up?;
        let open = self.sound_index()?;
        open.container.add_free_extents(self.space.take_given_up());
        open.container.give_up_reserve();
        while open.container.move_index_forward()? {}
        // Without room for it mail is refused, as ever.
        let _ = open.container.fill_reserve(0);
        open.container.cut_end();
        self.window.clear();
        self.hold_for_copies(&open, self.shared.pins.now());
        self.release(&open);
        Ok(self.space.end_of_texts_together(&open.container.free_extents()))
    }
}
