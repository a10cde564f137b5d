"""Images, pages and logs of the bundled host."""
