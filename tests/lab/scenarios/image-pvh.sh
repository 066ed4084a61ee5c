# The service VM of image-storage as a PVH domain: a guest reads what it wrote, and xl shutdown ends the VM in order.
limit=260
draft="image-storage is the same as PV, and pvh a guest that is PVH: this one is ./dev lab image-pvh"

. /lab/scenarios/image-storage.sh
storage_cfg="$storage_cfg
type='pvh'"
