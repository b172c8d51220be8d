//! The behaviour suite that every cluster class passes, fakes, harnesses for real components.
