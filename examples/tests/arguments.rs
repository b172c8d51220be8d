//! What a program does not know it refuses, before it starts anything.

use std::process::Command;

#[test]
fn an_example_refuses_what_it_does_not_take() {
    for (program, argument) in [
        (env!("CARGO_BIN_EXE_custom_class"), "--kwarg"),
        (env!("CARGO_BIN_EXE_custom_factory"), "--cluster-class"),
        (env!("CARGO_BIN_EXE_existing_cluster"), "--address"),
        (env!("CARGO_BIN_EXE_rust_on_dask"), "more"),
    ] {
        // No Dask either: it is not looked for.
        let output = Command::new(program).args([argument, "x"]).env("PATH", "").env("REMUDA_DASK", "/nowhere/dask").output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), &*out), (Some(2), ""), "{program}: {err}");
        assert_eq!(err, format!("Error: unknown argument {argument}: this example takes none\n"), "{program}");
    }
}
