# The service VM of image-storage as a PVH domain: a guest reads what it wrote, and xl shutdown ends the VM in order.
limit=260

. /lab/scenarios/image-storage.sh
storage_cfg="$storage_cfg
type='pvh'"
