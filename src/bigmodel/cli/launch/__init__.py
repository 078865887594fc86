"""What happens around Hydra.

    before it starts    flags, resume (resume_check, unfinished_runs, resume_config), redact_overrides
    instead of it       help, completion, pager: pages of text, made from config_index
    inside it           hydra_patches, which brings in safe_loader and input_limits
    when it fails       error_messages, from file_errors, other_tools and suggestion_check
    a run's folder      run_folder, lock; sweep reads the folders of all jobs

Nothing is imported here, so that `--help` costs no more than the module that prints it.
"""
