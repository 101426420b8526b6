//! Writes what is generated from the command line into a directory: manual pages, and completions for shells.
//! `packaging/build` runs it.

use std::fs;
use std::io;
use std::path::Path;

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let target = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: manuals DIRECTORY"))?;
    let target = Path::new(&target);
    let mut command = baton::cli::command().disable_help_subcommand(true);
    command.build();
    fs::create_dir_all(target.join("man"))?;
    write_pages(&command, &target.join("man"))?;
    fs::create_dir_all(target.join("completions"))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "baton", target.join("completions"))?;
    }
    Ok(())
}

/// A page for the command, and one for each command below it.
fn write_pages(command: &clap::Command, directory: &Path) -> io::Result<()> {
    clap_mangen::Man::new(command.clone()).manual("Baton").section("8").generate_to(directory)?;
    let mut below = command.get_subcommands().filter(|below| !below.is_hide_set());
    below.try_for_each(|below| write_pages(below, directory))
}
