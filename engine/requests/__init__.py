"""What an investigator may ask both models beyond the stored evidence, as declared data; loads no torch."""
